"""Writes stubs of TensorRT's interfaces, from its headers: `python stubs.py <folder of NvInferImpl.h> > stubs.h`.

Every function of a stub ends the process; the stand-in overrides those that are called.
"""

import pathlib
import re
import sys

OVERRIDDEN = {  # functions that the stand-in has itself, by class
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


def stub_of(header: str, name: str, overridden: set[str]) -> str:
    """The stub of a class, without the functions that the stand-in overrides."""
    body = re.search(rf"class {name}\s*:\s*public VRoot\s*\{{(.*?)\n\}};", header, re.DOTALL).group(1)
    lines = []
    for function in re.findall(r"virtual\s+(.*?)=\s*0\s*;", body, re.DOTALL):
        signature = " ".join(function.split())
        reads_a_stream = "deserializeCudaEngine" in signature and "Stream" in signature  # an overload of that name
        if re.search(r"(\w+)\(", signature).group(1) not in overridden or reads_a_stream:
            lines.append(f"  {signature} override {{ std::abort(); }}")
    return f"struct {name}Stub : nvinfer1::apiv::{name} {{\n" + "\n".join(lines) + "\n};\n"


if __name__ == "__main__":
    text = re.sub(r"//[^\n]*", "", (pathlib.Path(sys.argv[1]) / "NvInferImpl.h").read_text())
    print("#include <NvInferRuntime.h>\n\n#include <cstdlib>\n\nusing namespace nvinfer1;\n")
    print("\n".join(stub_of(text, name, overridden) for name, overridden in OVERRIDDEN.items()))
