"""Many agents on one host, many caches, and churn."""
