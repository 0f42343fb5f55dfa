"""Segments one image, and then all images of a folder, by a web server."""

import sys

from redis_consumer.client import Client, ImageResult

client = Client(sys.argv[1], folder="results")

result = client.segment("nuclei.tif", scale=1.0)
print(result.objects, "objects in labels of", result.labels.shape)
print("areas:", sorted(result.table["area_px"])[:3])

for found in client.batch("plate", scale=1.0):
    if isinstance(found, ImageResult):
        print(found.name, "has", found.objects, "objects, quality", found.quality)
    else:
        print(found)
