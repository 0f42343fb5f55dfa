"""What does ``python -m redis_consumer`` do? The same as ``redis-consumer``."""

from redis_consumer.cli import main

if __name__ == "__main__":
    main()
