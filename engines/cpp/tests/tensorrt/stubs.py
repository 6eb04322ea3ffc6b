"""Writes, from TensorRT's headers, classes that have every function of its interfaces and end the process in each: a
stand-in overrides what is called.

python stubs.py <folder of NvInferImpl.h> > stubs.h
"""

import pathlib
import re
import sys

WANTED = {  # what the stand-in has itself
    "VRuntime": {"deserializeCudaEngine", "getPImpl"},
    "VCudaEngine": {
        "getNbIOTensors",
        "getIOTensorName",
        "getTensorShape",
        "getTensorDataType",
        "getDeviceMemorySizeV2",
        "createExecutionContext",
        "getPImpl",
    },
    "VExecutionContext": {"setTensorAddress", "enqueueV3", "setDeviceMemoryV2", "getPImpl"},
}


def stubs(header: str, name: str, wanted: set[str]) -> str:
    """One class."""
    body = re.search(rf"class {name}\s*:\s*public VRoot\s*\{{(.*?)\n\}};", header, re.DOTALL).group(1)
    lines = []
    for function in re.findall(r"virtual\s+(.*?)=\s*0\s*;", body, re.DOTALL):
        words = " ".join(function.split())
        of_a_stream = "deserializeCudaEngine" in words and "Stream" in words  # another function of the same name
        if re.search(r"(\w+)\(", words).group(1) not in wanted or of_a_stream:
            lines.append(f"  {words} override {{ std::abort(); }}")
    return f"struct {name}Stub : nvinfer1::apiv::{name} {{\n" + "\n".join(lines) + "\n};\n"


if __name__ == "__main__":
    text = re.sub(r"//[^\n]*", "", (pathlib.Path(sys.argv[1]) / "NvInferImpl.h").read_text())
    print("#include <NvInferRuntime.h>\n\n#include <cstdlib>\n\nusing namespace nvinfer1;\n")
    print("\n".join(stubs(text, name, wanted) for name, wanted in WANTED.items()))
