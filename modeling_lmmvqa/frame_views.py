"""How a backbone of the spatial tower sees a frame: at which size, or which tiles of it."""


def resized_shape(height: int, width: int, side: int, patch: int) -> tuple[int, int]:
    """A shape like height x width, in whole patches, with about as many pixels as a square of `side`."""
    ratio, patches = (height / width) ** 0.5, side / patch
    return max(1, round(patches * ratio)) * patch, max(1, round(patches / ratio)) * patch


def tile_places(height: int, width: int, size: int, grid: int) -> list[tuple[slice, slice]]:
    """Rows and columns of grid x grid tiles, row by row: each a square of this size around the middle of its part of
    the frame, moved inside it. A frame smaller than a tile is one."""
    rows, columns = (
        [max(0, min(round((2 * place + 1) * side / (2 * grid) - size / 2), side - size)) for place in range(grid)]
        for side in (height, width)
    )
    return [(slice(y, y + size), slice(x, x + size)) for y in rows for x in columns]
