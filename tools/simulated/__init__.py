"""The cache under faults in virtual time: campaigns, their clients, and the judges of what these saw."""
