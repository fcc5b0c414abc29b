"""A stand-in for TensorRT and for the CUDA runtime: no GPU here, so the glue around them runs against these.

It "builds" a plan that doubles its input. What it can show: that our files call what TensorRT documents, copy the
right bytes, free what they take and turn failures into clear errors. What it cannot show: that a GPU agrees.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["install"]

CUDART = """
#include <stdlib.h>
#include <string.h>
static int allocated = 0, fail = 0;
int cudaStreamCreate(void **s) { *s = (void *)1; return fail == 1 ? 35 : 0; }
int cudaStreamDestroy(void *s) { return 0; }
int cudaStreamSynchronize(void *s) { return 0; }
int cudaMalloc(void **p, size_t n) { if (fail == 2) return 2; *p = malloc(n); allocated++; return 0; }
int cudaFree(void *p) { free(p); allocated--; return 0; }
int cudaMemcpyAsync(void *d, const void *s, size_t n, int k, void *t) { memcpy(d, s, n); return 0; }
const char *cudaGetErrorString(int e) { return e == 2 ? "out of memory" : "CUDA driver version is insufficient"; }
int stand_in_allocated(void) { return allocated; }
void stand_in_fail(int how) { fail = how; }
"""

CUDA = """
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return getenv("STAND_IN_SM") ? 0 : 100; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  int sm = atoi(getenv("STAND_IN_SM"));
  *value = which == 75 ? sm / 10 : sm % 10;
  return 0;
}
int cuDeviceGetName(char *name, int length, int device) { strcpy(name, "Stand-in GPU"); return 0; }
"""

MODULE = """
import ctypes, ctypes.util, enum, json, os, pathlib
library = str(pathlib.Path(__file__).with_name("libcudart.so"))
ctypes.util.find_library = lambda name: library  # also where a real CUDA runtime is installed
__version__ = os.environ.get("STAND_IN_VERSION", "10.3.0")
class TensorIOMode(enum.Enum): INPUT = 1; OUTPUT = 2
class DataType(enum.Enum): FLOAT = 0; FP4 = 9
class NetworkDefinitionCreationFlag(enum.IntEnum): STRONGLY_TYPED = 1
class ProfilingVerbosity(enum.Enum): DETAILED = 2
class BuilderFlag(enum.Enum): SPARSE_WEIGHTS = 7; GPU_FALLBACK = 3
class DeviceType(enum.Enum): GPU = 0; DLA = 1
class OnnxParserFlag(enum.Enum): ADJUST_FOR_DLA = 4
class MemoryPoolType(enum.Enum): WORKSPACE = 0
class LayerInformationFormat(enum.Enum): JSON = 1
class ILogger:
    class Severity(enum.Enum): INTERNAL_ERROR = 0; ERROR = 1; WARNING = 2; INFO = 3; VERBOSE = 4
    def __init__(self): pass
    def log(self, severity, message): pass
class Logger(ILogger):
    WARNING = ILogger.Severity.WARNING
    def __init__(self, level=None): pass
class _Tensor: name = "x"; shape = (-1, 3)
class _Network:
    num_inputs = 1; num_layers = 1
    def get_input(self, index): return _Tensor()
class _Blob(bytes): pass
class _Cache:
    def serialize(self): return b"timings"
class _Profile:
    def set_shape(self, name, low, best, high): self.shapes = (low, best, high)
class _Config:
    profile = None; flags = (); default_device_type = DeviceType.GPU; DLA_core = -1
    def set_flag(self, flag): self.flags = (*self.flags, flag.name)
    def set_memory_pool_limit(self, pool, size): self.size = size
    def add_optimization_profile(self, profile): self.profile = profile
    def create_timing_cache(self, data): self.old = data; return _Cache()
    def set_timing_cache(self, cache, ignore_mismatch):
        print("timing cache:", self.old.decode())
        return self.old in (b"", b"timings")
    def get_timing_cache(self): return _Cache()
class Builder:
    num_DLA_cores = int(os.environ.get("STAND_IN_DLA_CORES", "0"))
    def __init__(self, logger): self.logger = logger
    def create_network(self, flags): assert flags == 2; return _Network()
    def create_builder_config(self): return _Config()
    def create_optimization_profile(self): return _Profile()
    def build_serialized_network(self, network, config):
        said = os.environ.get("STAND_IN_BUILD_ERROR")
        if said or config.profile is None:
            self.logger.log(ILogger.Severity.ERROR, said or "no optimization profile has been defined")
            return None
        low, _, high = config.profile.shapes
        return _Blob(json.dumps({"factor": 2, "low": low, "high": high, "size": config.size, "flags": config.flags, "device": config.default_device_type.name, "core": config.DLA_core}).encode())
class _Error:
    def desc(self): return os.environ["STAND_IN_PARSE_ERROR"]
    def node_name(self): return "bad"
    def node_operator(self): return "Foo"
class OnnxParser:
    num_errors = 1
    def __init__(self, network, logger): self.network = network
    def set_flag(self, flag): print("parser flag:", flag.name)
    def parse_from_file(self, path): return "STAND_IN_PARSE_ERROR" not in os.environ
    def get_error(self, index): return _Error()
class _Inspector:
    def get_engine_information(self, form): return json.dumps({"Layers": ["double"]})
class _Context:
    def __init__(self, plan): self.plan, self.where, self.shape = plan, {}, None
    def set_input_shape(self, name, shape):
        self.shape = shape
        return self.plan["low"][0] <= shape[0] <= self.plan["high"][0]
    def set_tensor_address(self, name, pointer): self.where[name] = pointer
    def get_tensor_shape(self, name): return self.shape
    def execute_async_v3(self, stream):
        count = self.shape[0] * self.shape[1]
        x, y = ((ctypes.c_float * count).from_address(self.where[n]) for n in "xy")
        for i in range(count): y[i] = x[i] * float(os.environ.get("STAND_IN_FACTOR", self.plan["factor"]))
        return True
class _Engine:
    num_io_tensors = 2
    def __init__(self, plan): self.plan = plan
    def create_execution_context(self): return _Context(self.plan)
    def create_engine_inspector(self): return _Inspector()
    def get_tensor_name(self, i): return "xy"[i]
    def get_tensor_dtype(self, name): return DataType[os.environ.get("STAND_IN_DTYPE", "FLOAT")]
    def get_tensor_mode(self, name): return TensorIOMode.INPUT if name == "x" else TensorIOMode.OUTPUT
    def get_tensor_shape(self, name): return (-1, 3)
    def get_tensor_profile_shape(self, name, profile): return self.plan["low"], self.plan["low"], self.plan["high"]
class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, data):
        try: return _Engine(json.loads(data))
        except ValueError: return None
"""


def install(folder: Path) -> Path:
    """Write both into ``folder``, to be put on the path."""
    for code, library in ((CUDART, "libcudart.so"), (CUDA, "libcuda.so.1")):
        source = folder / f"{library}.c"
        source.write_text(code)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / library, source], check=True)
    (folder / "tensorrt.py").write_text(MODULE)
    return folder
