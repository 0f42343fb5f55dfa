"""The queues that ours is compared with: each module runs in the environment of its own library."""
