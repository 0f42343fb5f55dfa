"""The queues that ours is compared with. Each module runs in the environment of its own library."""
