// A CUDA driver for machines without a GPU: "device" memory is the host's, and work is done as late as the rules allow.
//
// Streams keep what is put on them until somebody waits for it; another stream's work is then done up to the event that
// was waited for, and no further. So whoever forgets to wait reads memory that was never written. A capture that is
// left with work of another stream unjoined is refused, as the real driver does. Addresses outside of what was
// allocated are refused.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <list>
#include <map>
#include <string>
#include <vector>

namespace {

using Result = int;
enum : Result { kOk = 0, kInvalid = 1, kOutOfMemory = 2, kUnjoined = 904, kNotCapturing = 901, kUnsupported = 801 };

struct List;
struct Graph;

struct Op {
  enum Kind { kCopy, kCopyRows, kFill, kFillWords, kCall, kRecord, kWait, kLaunch } kind;
  char *target = nullptr, *source = nullptr;
  size_t size = 0, rows = 1, target_pitch = 0, source_pitch = 0;
  int value = 0;
  void (*function)(void*) = nullptr;
  void* data = nullptr;
  double* time = nullptr;
  List* list = nullptr;
  size_t until = 0;
  Graph* graph = nullptr;
};

struct List {
  std::vector<Op> ops;  // those that are not forgotten
  size_t forgotten = 0, done = 0;
  size_t joined = 0;  // of a captured list: up to where somebody waits for it
  size_t size() const { return forgotten + ops.size(); }
};

struct Graph {
  std::map<void*, List> lists;  // by stream
  void* root = nullptr;
};

struct Stream {
  List own;
  Graph* graph = nullptr;
  List& now() { return graph ? graph->lists[this] : own; }
};

struct Event {
  List* list = nullptr;
  size_t position = 0;
  Graph* graph = nullptr;
  double time = 0;
};

std::list<Stream> streams;
std::list<Event> events;  // never freed: what is on a stream may still name them
std::list<Graph> graphs;
long contexts = 0;   // pushed and not popped
long destroyed = 0;  // streams
std::map<char*, size_t> allocated;
long allocations = 0, launches = 0;
size_t limit = size_t(4) << 30;
size_t cached = 0;  // bytes that files take and that are given up where memory is wanted
bool integrated = false;
std::string refused_name;  // of the function that refuses a call, that many calls from now
long refused_after = 0;

bool refuses(const char* name) { return name == refused_name && refused_after-- == 0; }

double clock_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * double(now.tv_sec) + 1e-6 * double(now.tv_nsec);
}

bool inside(const void* address, size_t size) {
  auto block = allocated.upper_bound(static_cast<char*>(const_cast<void*>(address)));
  if (block == allocated.begin()) return false;
  --block;
  return static_cast<const char*>(address) + size <= block->first + block->second;
}

void perform(List& list, size_t until);

void perform(const Op& op) {
  switch (op.kind) {
    case Op::kCopy:
    case Op::kCopyRows:
      for (size_t row = 0; row < op.rows; ++row)
        std::memcpy(op.target + row * op.target_pitch, op.source + row * op.source_pitch, op.size);
      break;
    case Op::kFill:
      std::memset(op.target, op.value, op.size);
      break;
    case Op::kFillWords:
      for (size_t i = 0; i < op.size; ++i) std::memcpy(op.target + 4 * i, &op.value, 4);
      break;
    case Op::kCall:
      op.function(op.data);
      break;
    case Op::kRecord:
      *op.time = clock_now();
      break;
    case Op::kWait:
      perform(*op.list, op.until);
      break;
    case Op::kLaunch:
      ++launches;
      for (auto& entry : op.graph->lists) entry.second.done = 0;
      perform(op.graph->lists[op.graph->root], op.graph->lists[op.graph->root].size());
      break;
  }
}

void perform(List& list, size_t until) {
  while (list.done < until) {
    const size_t number = list.done++;
    perform(Op(list.ops[number - list.forgotten]));
  }
}

Stream* real(void* handle) {
  static Stream standard;  // 0 and 1 stand for the default stream, 2 for the calling thread's own one
  thread_local Stream* own = nullptr;
  const uintptr_t number = reinterpret_cast<uintptr_t>(handle);
  if (number == 2 && own == nullptr) own = &streams.emplace_back();
  return number == 2 ? own : number < 2 ? &standard : static_cast<Stream*>(handle);
}

Result put(void* stream, Op op) {
  real(stream)->now().ops.push_back(op);
  return kOk;
}

Result unsupported() { return kUnsupported; }

}  // namespace

extern "C" {

// ---- what the tests ask of it

long driver_allocations() { return allocations; }
long driver_launches() { return launches; }
long driver_contexts() { return contexts; }
long driver_streams_destroyed() { return destroyed; }
void driver_limit(size_t bytes) { limit = bytes; }
void driver_integrated(int yes, size_t cache) { integrated = yes != 0, cached = cache; }
void driver_refuse(const char* function, long after) { refused_name = function, refused_after = after; }

// ---- the driver's functions

Result cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* status) {
  static void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = dlsym(self, name);
  if (*function == nullptr) *function = reinterpret_cast<void*>(&unsupported);
  if (status != nullptr) *status = 0;
  return kOk;
}
Result cuInit(unsigned) { return kOk; }
Result cuDriverGetVersion(int* version) { return *version = 13000, kOk; }
Result cuGetErrorName(Result error, const char** text) {
  return *text = error == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR", kOk;
}
Result cuGetErrorString(Result error, const char** text) { return cuGetErrorName(error, text); }
Result cuDeviceGetCount(int* count) { return *count = 1, kOk; }
Result cuDeviceGet(int* device, int) { return *device = 0, kOk; }
Result cuDeviceGetName(char* name, int size, int) { return std::snprintf(name, size_t(size), "no GPU"), kOk; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
  // compute capability 8.9; no memory pools
  *value = attribute == 75 ? 8 : attribute == 76 ? 9 : attribute == 18 ? integrated : 0;
  return kOk;
}
Result cuDevicePrimaryCtxRetain(void** context, int) { return *context = &streams, kOk; }
Result cuDevicePrimaryCtxRelease(int) { return kOk; }
Result cuDevicePrimaryCtxRelease_v2(int) { return kOk; }
Result cuCtxSetCurrent(void*) { return kOk; }
Result cuCtxGetCurrent(void** context) { return *context = &streams, kOk; }
Result cuCtxGetDevice(int* device) { return *device = 0, kOk; }
Result cuCtxGetDevice_v2(int* device, void*) { return *device = 0, kOk; }
Result cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = *greatest = 0, kOk; }
Result cuCtxPushCurrent(void*) { return ++contexts, kOk; }
Result cuCtxPushCurrent_v2(void*) { return refuses(__func__) ? kInvalid : (++contexts, kOk); }
Result cuCtxPopCurrent(void** context) { return --contexts, *context = &streams, kOk; }
Result cuCtxPopCurrent_v2(void** context) { return --contexts, *context = &streams, kOk; }
Result cuStreamCreateWithPriority(void** stream, unsigned, int) {
  return streams.emplace_back(), *stream = &streams.back(), kOk;
}
Result cuStreamCreate(void** stream, unsigned) {
  return refuses(__func__) ? kInvalid : cuStreamCreateWithPriority(stream, 0, 0);
}
Result cuStreamDestroy(void*) { return ++destroyed, kOk; }
Result cuStreamDestroy_v2(void*) { return ++destroyed, kOk; }
Result cuStreamGetCtx(void*, void** context) { return *context = &streams, kOk; }

Result cuMemAlloc_v2(void** address, size_t size) {
  size_t used = 0;
  for (auto& entry : allocated) used += entry.second;
  if (used + size > limit) return kOutOfMemory;
  *address = std::aligned_alloc(256, (size + 255) / 256 * 256);
  std::memset(*address, 0x7f, size);
  allocated[static_cast<char*>(*address)] = size;
  return ++allocations, kOk;
}
Result cuMemAlloc(void** address, size_t size) { return cuMemAlloc_v2(address, size); }
Result cuMemFree_v2(void* address) { return allocated.erase(static_cast<char*>(address)), std::free(address), kOk; }
Result cuMemFree(void* address) { return cuMemFree_v2(address); }
Result cuMemAllocHost_v2(void** address, size_t size) { return cuMemAlloc_v2(address, size); }
Result cuMemAllocHost(void** address, size_t size) { return cuMemAlloc_v2(address, size); }
Result cuMemHostAlloc(void** address, size_t size, unsigned) { return cuMemAlloc_v2(address, size); }
Result cuMemFreeHost(void* address) { return cuMemFree_v2(address); }
Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  size_t used = 0;
  for (auto& entry : allocated) used += entry.second;
  used += cached;
  return *total = limit, *free = limit - (used < limit ? used : limit), kOk;
}
Result cuMemGetInfo(size_t* free, size_t* total) { return cuMemGetInfo_v2(free, total); }

Result cuMemcpyHtoDAsync_v2(char* target, char* source, size_t size, void* stream) {
  if (refuses(__func__) || !inside(target, size) || !inside(source, size)) return kInvalid;
  Op op{Op::kCopy};
  op.target = target, op.source = source, op.size = size;
  return put(stream, op);
}
Result cuMemcpyHtoDAsync(char* target, char* source, size_t size, void* stream) {
  return cuMemcpyHtoDAsync_v2(target, source, size, stream);
}
Result cuMemcpyDtoHAsync_v2(char* target, char* source, size_t size, void* stream) {
  if (refuses(__func__) || !inside(source, size)) return kInvalid;
  Op op{Op::kCopy};
  op.target = target, op.source = source, op.size = size;
  return put(stream, op);
}
Result cuMemcpyDtoHAsync(char* target, char* source, size_t size, void* stream) {
  return cuMemcpyDtoHAsync_v2(target, source, size, stream);
}

struct Copy2D {
  size_t source_x, source_y;
  int source_kind;
  void* source_host;
  char* source;
  void* source_array;
  size_t source_pitch, target_x, target_y;
  int target_kind;
  void* target_host;
  char* target;
  void* target_array;
  size_t target_pitch, width, height;
};
Result cuMemcpy2DAsync_v2(const Copy2D* copy, void* stream) {
  if (copy->source_kind != 2 || copy->target_kind != 2 || copy->width > copy->target_pitch ||
      copy->width > copy->source_pitch)
    return kInvalid;
  if (!inside(copy->source, copy->width + (copy->height - 1) * copy->source_pitch)) return kInvalid;
  if (!inside(copy->target, copy->width + (copy->height - 1) * copy->target_pitch)) return kInvalid;
  Op op{Op::kCopyRows};
  op.target = copy->target, op.source = copy->source, op.size = copy->width, op.rows = copy->height;
  op.target_pitch = copy->target_pitch, op.source_pitch = copy->source_pitch;
  return put(stream, op);
}
Result cuMemcpy2DAsync(const Copy2D* copy, void* stream) { return cuMemcpy2DAsync_v2(copy, stream); }
Result cuMemsetD8Async(char* target, unsigned char value, size_t size, void* stream) {
  if (!inside(target, size)) return kInvalid;
  Op op{Op::kFill};
  op.target = target, op.value = value, op.size = size;
  return put(stream, op);
}
Result cuMemsetD32Async(char* target, unsigned value, size_t count, void* stream) {
  if (refuses(__func__) || !inside(target, 4 * count)) return kInvalid;
  Op op{Op::kFillWords};
  op.target = target, op.value = static_cast<int>(value), op.size = count;
  return put(stream, op);
}
Result cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
  if (refuses(__func__)) return kInvalid;
  Op op{Op::kCall};
  op.function = function, op.data = data;
  return put(stream, op);
}

Result cuEventCreate(void** event, unsigned) { return events.emplace_back(), *event = &events.back(), kOk; }
Result cuEventDestroy(void*) { return kOk; }
Result cuEventDestroy_v2(void*) { return kOk; }
Result cuEventRecordWithFlags(Event* event, Stream* stream, unsigned) {
  Op op{Op::kRecord};
  op.time = &event->time;
  put(stream, op);
  stream = real(stream);
  event->list = &stream->now(), event->position = event->list->size(), event->graph = stream->graph;
  return kOk;
}
Result cuEventRecord(Event* event, Stream* stream) { return cuEventRecordWithFlags(event, stream, 0); }
Result cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
  if (refuses(__func__)) return kInvalid;
  if (event->list == nullptr) return kOk;  // never recorded
  stream = real(stream);
  if (event->graph != nullptr) {
    stream->graph = event->graph;
    if (event->list->joined < event->position) event->list->joined = event->position;
  }
  Op op{Op::kWait};
  op.list = event->list, op.until = event->position;
  return put(stream, op);
}
Result cuEventElapsedTime_v2(float* ms, Event* begin, Event* end) { return *ms = float(end->time - begin->time), kOk; }
Result cuEventElapsedTime(float* ms, Event* begin, Event* end) { return cuEventElapsedTime_v2(ms, begin, end); }
Result cuEventSynchronize(Event* event) {
  if (event->list != nullptr && event->graph == nullptr) perform(*event->list, event->position);
  return kOk;
}
Result cuStreamSynchronize(Stream* stream) {
  List& list = real(stream)->own;
  perform(list, list.size());
  list.forgotten = list.size();
  return list.ops.clear(), kOk;
}

Result cuStreamBeginCapture_v2(Stream* stream, int) {
  graphs.emplace_back();
  stream->graph = &graphs.back();
  stream->graph->root = stream;
  return kOk;
}
Result cuStreamBeginCapture(Stream* stream, int mode) { return cuStreamBeginCapture_v2(stream, mode); }
Result cuStreamEndCapture(Stream* stream, void** graph) {
  Graph* graph_made = stream->graph;
  if (graph_made == nullptr) return kNotCapturing;
  bool unjoined = false;
  for (auto& entry : graph_made->lists)
    if (entry.first != stream && entry.second.joined < entry.second.size()) unjoined = true;
  for (auto& other : streams)
    if (other.graph == graph_made) other.graph = nullptr;
  return *graph = unjoined ? nullptr : graph_made, unjoined ? kUnjoined : kOk;
}
Result cuStreamIsCapturing(Stream* stream, int* status) { return *status = stream->graph != nullptr, kOk; }
Result cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  return *executable = graph, kOk;
}
Result cuGraphInstantiate(void** executable, void* graph, unsigned long long) { return *executable = graph, kOk; }
Result cuGraphDestroy(void*) { return kOk; }
Result cuGraphExecDestroy(void*) { return kOk; }
Result cuGraphLaunch(Graph* graph, void* stream) {
  if (refuses(__func__)) return kInvalid;
  Op op{Op::kLaunch};
  op.graph = graph;
  return put(stream, op);
}

}  // extern "C"
