"""What heads give of a scene: a point cloud, cameras, depth."""
