"""Stages on OpenVINO: attention as its own operation, compiled models kept between runs."""
