"""The ONNX files of an engine folder, checked before a library reads them."""
