"""The cache beside Redis, memcached, diskcache and others."""
