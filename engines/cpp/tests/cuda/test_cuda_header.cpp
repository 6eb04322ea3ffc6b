// Compares the types, constants and names of entry points in cuda/driver.h with cuda.h.
#include <cuda.h>

#include <cstddef>
#include <type_traits>

#include "cuda/driver.h"

#define TEXT_OF(name) #name
#define NAME_OF(name) TEXT_OF(name)

namespace {

namespace page = page4d::cuda;

constexpr bool equal(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

static_assert(page::kSuccess == CUDA_SUCCESS && page::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(page::kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR &&
              page::kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(page::kIntegrated == CU_DEVICE_ATTRIBUTE_INTEGRATED);
static_assert(page::kEventDefault == CU_EVENT_DEFAULT && page::kRecordDefault == CU_EVENT_RECORD_DEFAULT &&
              page::kRecordExternal == CU_EVENT_RECORD_EXTERNAL);
static_assert(page::kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
              page::kMemoryDevice == CU_MEMORYTYPE_DEVICE);
static_assert(std::is_same_v<page::Pointer, CUdeviceptr> || sizeof(page::Pointer) == sizeof(CUdeviceptr));
static_assert(std::is_same_v<page::DeviceNumber, CUdevice> && sizeof(page::Result) == sizeof(CUresult) &&
              sizeof(page::Event) == sizeof(CUevent));

static_assert(sizeof(page::Copy2D) == sizeof(CUDA_MEMCPY2D));
static_assert(offsetof(page::Copy2D, source_kind) == offsetof(CUDA_MEMCPY2D, srcMemoryType) &&
              offsetof(page::Copy2D, source) == offsetof(CUDA_MEMCPY2D, srcDevice));
static_assert(offsetof(page::Copy2D, source_pitch) == offsetof(CUDA_MEMCPY2D, srcPitch) &&
              offsetof(page::Copy2D, target_kind) == offsetof(CUDA_MEMCPY2D, dstMemoryType));
static_assert(offsetof(page::Copy2D, target) == offsetof(CUDA_MEMCPY2D, dstDevice) &&
              offsetof(page::Copy2D, target_pitch) == offsetof(CUDA_MEMCPY2D, dstPitch));
static_assert(offsetof(page::Copy2D, width) == offsetof(CUDA_MEMCPY2D, WidthInBytes) &&
              offsetof(page::Copy2D, height) == offsetof(CUDA_MEMCPY2D, Height));

// cuda.h maps a name to the entry point of its version
static_assert(equal(NAME_OF(cuCtxPushCurrent), "cuCtxPushCurrent_v2") &&
              equal(NAME_OF(cuCtxPopCurrent), "cuCtxPopCurrent_v2"));
static_assert(equal(NAME_OF(cuDevicePrimaryCtxRelease), "cuDevicePrimaryCtxRelease_v2") &&
              equal(NAME_OF(cuDevicePrimaryCtxRetain), "cuDevicePrimaryCtxRetain"));
static_assert(equal(NAME_OF(cuMemGetInfo), "cuMemGetInfo_v2") && equal(NAME_OF(cuMemAlloc), "cuMemAlloc_v2") &&
              equal(NAME_OF(cuMemFree), "cuMemFree_v2"));
static_assert(equal(NAME_OF(cuMemHostAlloc), "cuMemHostAlloc") && equal(NAME_OF(cuMemFreeHost), "cuMemFreeHost") &&
              equal(NAME_OF(cuMemsetD8Async), "cuMemsetD8Async") &&
              equal(NAME_OF(cuMemsetD32Async), "cuMemsetD32Async"));
static_assert(equal(NAME_OF(cuMemcpyHtoDAsync), "cuMemcpyHtoDAsync_v2") &&
              equal(NAME_OF(cuMemcpyDtoHAsync), "cuMemcpyDtoHAsync_v2"));
static_assert(equal(NAME_OF(cuMemcpy2DAsync), "cuMemcpy2DAsync_v2") &&
              equal(NAME_OF(cuStreamCreate), "cuStreamCreate"));
static_assert(equal(NAME_OF(cuStreamDestroy), "cuStreamDestroy_v2") &&
              equal(NAME_OF(cuStreamSynchronize), "cuStreamSynchronize"));
static_assert(equal(NAME_OF(cuEventCreate), "cuEventCreate") && equal(NAME_OF(cuEventDestroy), "cuEventDestroy_v2"));
static_assert(equal(NAME_OF(cuEventRecordWithFlags), "cuEventRecordWithFlags") &&
              equal(NAME_OF(cuEventSynchronize), "cuEventSynchronize"));
static_assert(equal(NAME_OF(cuStreamWaitEvent), "cuStreamWaitEvent"));
static_assert(equal(NAME_OF(cuLaunchHostFunc), "cuLaunchHostFunc") &&
              equal(NAME_OF(cuStreamBeginCapture), "cuStreamBeginCapture_v2"));
static_assert(equal(NAME_OF(cuStreamEndCapture), "cuStreamEndCapture") &&
              equal(NAME_OF(cuGraphInstantiateWithFlags), "cuGraphInstantiateWithFlags"));
static_assert(equal(NAME_OF(cuGraphDestroy), "cuGraphDestroy") &&
              equal(NAME_OF(cuGraphExecDestroy), "cuGraphExecDestroy") &&
              equal(NAME_OF(cuGraphLaunch), "cuGraphLaunch"));
// of two versions that do the same, drivers of both CUDA 12 and 13 have the older one
static_assert(equal(NAME_OF(cuEventElapsedTime),
                    CUDA_VERSION < 12080 ? "cuEventElapsedTime" : "cuEventElapsedTime_v2") ||
              equal(NAME_OF(cuEventElapsedTime), "cuEventElapsedTime"));

}  // namespace

int main() {}
