// The CUDA driver, opened at its first use: a program that links this library also runs without a driver. Only calls
// that drivers of both CUDA 12 and 13 have, by the names of their entry points; a test compares them with cuda.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace page4d::cuda {

// The driver's types, so that no CUDA header is needed.
using Result = int;             // CUresult
using DeviceNumber = int;       // CUdevice
using Context = struct Ctx*;    // CUcontext
using CuStream = void*;         // CUstream, cudaStream_t
using Event = struct Evt*;      // CUevent
using Graph = struct Grp*;      // CUgraph
using GraphExec = struct Gex*;  // CUgraphExec
using Pointer = uint64_t;       // CUdeviceptr

inline constexpr Result kSuccess = 0;           // CUDA_SUCCESS
inline constexpr Result kOutOfMemory = 2;       // CUDA_ERROR_OUT_OF_MEMORY
inline constexpr int kIntegrated = 18;          // CU_DEVICE_ATTRIBUTE_INTEGRATED
inline constexpr int kCapabilityMajor = 75;     // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
inline constexpr int kCapabilityMinor = 76;     // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
inline constexpr unsigned kEventDefault = 0;    // CU_EVENT_DEFAULT
inline constexpr unsigned kRecordDefault = 0;   // CU_EVENT_RECORD_DEFAULT
inline constexpr unsigned kRecordExternal = 1;  // CU_EVENT_RECORD_EXTERNAL
inline constexpr int kCaptureThreadLocal = 1;   // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
inline constexpr unsigned kMemoryDevice = 2;    // CU_MEMORYTYPE_DEVICE

// CUDA_MEMCPY2D_v2
struct Copy2D {
  size_t source_x = 0, source_y = 0;
  unsigned source_kind = kMemoryDevice;
  const void* source_host = nullptr;
  Pointer source = 0;
  void* source_array = nullptr;
  size_t source_pitch = 0;
  size_t target_x = 0, target_y = 0;
  unsigned target_kind = kMemoryDevice;
  void* target_host = nullptr;
  Pointer target = 0;
  void* target_array = nullptr;
  size_t target_pitch = 0;
  size_t width = 0, height = 0;
};

struct Driver {
  // Throws Error kMissingBackend if there is no driver or no GPU; a later call tries again.
  static const Driver& get();

  // The error's name.
  const char* name_of(Result result) const noexcept;
  // Throws Error if the call was refused.
  void check(Result result, const char* call) const;

  int capability_of(DeviceNumber device) const;   // compute capability times ten
  bool is_integrated(DeviceNumber device) const;  // whether it shares the host's memory

  Result (*init)(unsigned);
  Result (*error_name)(Result, const char**);
  Result (*driver_version)(int*);
  Result (*device_count)(int*);
  Result (*device_get)(DeviceNumber*, int);
  Result (*device_name)(char*, int, DeviceNumber);
  Result (*device_attribute)(int*, int, DeviceNumber);
  Result (*retain_context)(Context*, DeviceNumber);
  Result (*release_context)(DeviceNumber);
  Result (*push_context)(Context);
  Result (*pop_context)(Context*);
  Result (*memory_info)(size_t*, size_t*);
  Result (*allocate)(Pointer*, size_t);
  Result (*free)(Pointer);
  Result (*host_allocate)(void**, size_t, unsigned);
  Result (*host_free)(void*);
  Result (*fill)(Pointer, unsigned char, size_t, CuStream);
  Result (*fill_words)(Pointer, unsigned, size_t, CuStream);
  Result (*upload)(Pointer, const void*, size_t, CuStream);
  Result (*download)(void*, Pointer, size_t, CuStream);
  Result (*copy_rows)(const Copy2D*, CuStream);
  Result (*make_stream)(CuStream*, unsigned);
  Result (*destroy_stream)(CuStream);
  Result (*synchronize)(CuStream);
  Result (*make_event)(Event*, unsigned);
  Result (*destroy_event)(Event);
  Result (*record)(Event, CuStream, unsigned);
  Result (*wait_event)(Event);
  Result (*follow_event)(CuStream, Event, unsigned);
  Result (*elapsed)(float*, Event, Event);
  Result (*call_host)(CuStream, void (*)(void*), void*);
  Result (*begin_capture)(CuStream, int);
  Result (*end_capture)(CuStream, Graph*);
  Result (*instantiate)(GraphExec*, Graph, unsigned long long);
  Result (*destroy_graph)(Graph);
  Result (*destroy_exec)(GraphExec);
  Result (*launch)(GraphExec, CuStream);

 private:
  Driver();
};

}  // namespace page4d::cuda
