"""Questions put to runs and models: dose curves, layer scans, rounds, latency, patching, statistics."""
