"""From a video to its row: one path for one video, many, or a cluster of machines."""
