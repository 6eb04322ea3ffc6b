"""What a run writes: tensors, masks, depth, point clouds, cameras, a report."""
