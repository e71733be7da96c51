"""What every thread of ours is made of: the clock, deadlines, queues, pools, waits and counters."""
