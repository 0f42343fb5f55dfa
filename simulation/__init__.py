"""Simulates fleets of workers: stations, costs, arrivals of images, bottlenecks and advice."""
