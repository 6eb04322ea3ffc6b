"""Recorded ROS 2 bags as clips: topics are cameras, messages are frames."""
