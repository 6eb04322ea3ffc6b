// Windows on several streams: each result is that of its own window, in whatever order the caller waits, and nothing is
// under way after a failure or when a pipeline is destroyed. The tests' driver does work as late as streams and events
// allow, so that a missing dependency gives a wrong result.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "runtime/window_cases.h"

using namespace page4d;

namespace {

void* const kOwn = nullptr;                                      // the pipeline's own stream
void* const kPerThread = reinterpret_cast<void*>(uintptr_t{2});  // cudaStreamPerThread

// A runner on the tests' driver, and the results that it should give.
struct Runners {
  Runners(const nlohmann::ordered_json& plan, bool use_graph, bool sliding)
      : manifest(parse_manifest(plan.dump(), "")),
        options(options_for(manifest)),
        host_loader(checksum_loader()),
        device(0),
        loader(device) {
    options.use_graph = use_graph;
    host = std::make_unique<WindowRunner>(manifest, *host_loader, constants_of(manifest), options);
    options.sliding = sliding;
    const Entered entered(device);
    gpu = std::make_unique<WindowRunner>(manifest, loader, constants_of(manifest), options);
  }

  const EngineInfo& info() const { return gpu->info(); }

  // Puts the window of a film that begins at `start` on a stream; its images are freed when this returns.
  Results put(int64_t start, int64_t shared, void* stream) {
    const WindowInputs inputs = WindowInputs::of_film(manifest, start);
    Results results(info());
    Frames frames = inputs.frames();
    frames.shared = shared;
    CHECK_TEXT(gpu->run(frames, results.outputs(), stream).message, "");
    return results;
  }

  const std::string& expected(int64_t start) {
    std::string& window = expected_[start];
    if (!window.empty()) return window;
    const WindowInputs inputs = WindowInputs::of_film(manifest, start);
    Results results(info());
    CHECK(host->run(inputs.frames(), results.outputs(), nullptr).ok());
    return window = contents(results, info());
  }

  Manifest manifest;
  Options options;
  std::unique_ptr<EngineLoader> host_loader;
  CudaDevice device;
  Loader loader;
  std::unique_ptr<WindowRunner> host, gpu;

 private:
  std::map<int64_t, std::string> expected_;
};

// Each window on another stream than the one before; the caller waits for the last one first.
void test_order(Runners& runners, const std::vector<void*>& streams, int64_t stride) {
  const int64_t T = runners.manifest.layout.T;
  std::vector<Results> actual;
  for (size_t i = 0; i < streams.size(); ++i)
    actual.push_back(runners.put(static_cast<int64_t>(i) * stride, i == 0 ? 0 : T - stride, streams[i]));
  for (size_t i = streams.size(); i-- > 0;) Caller::synchronize(streams[i]);
  for (size_t i = 0; i < streams.size(); ++i)
    CHECK(contents(actual[i], runners.info()) == runners.expected(static_cast<int64_t>(i) * stride));
}

void test_every_order(const nlohmann::ordered_json& plan, bool use_graph, bool sliding) {
  Runners runners(plan, use_graph, sliding);
  void *first = Caller::stream(), *second = Caller::stream();
  const int64_t T = runners.manifest.layout.T;
  for (const int64_t stride : sliding ? std::vector<int64_t>{T, 1, T - 1} : std::vector<int64_t>{T}) {
    test_order(runners, {first, second}, stride);
    test_order(runners, {second, kPerThread, first, kOwn, kOwn, first}, stride);
  }
}

// Four threads in turn, each on its own default stream: all of these streams have the same handle.
void test_threads_one_after_another(const nlohmann::ordered_json& plan, bool use_graph) {
  Runners runners(plan, use_graph, false);
  constexpr int64_t kThreads = 4;
  std::vector<std::unique_ptr<Results>> actual(kThreads);
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable changed;
  int64_t turn = 0, waiting = 0;
  for (int64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait(lock, [&] { return turn == i; });
      actual[static_cast<size_t>(i)] = std::make_unique<Results>(runners.put(i, 0, kPerThread));
      ++turn;
      changed.notify_all();
      changed.wait(lock, [&] { return turn == kThreads && waiting == kThreads - 1 - i; });  // the last one waits first
      Caller::synchronize(kPerThread);
      ++waiting;
      changed.notify_all();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int64_t i = 0; i < kThreads; ++i)
    CHECK(contents(*actual[static_cast<size_t>(i)], runners.info()) == runners.expected(i));
}

// The destructor waits for the last window, which uses the pipeline's memory until it is done.
void test_goes_while_a_window_is_under_way(const nlohmann::ordered_json& plan, bool use_graph) {
  auto runners = std::make_unique<Runners>(plan, use_graph, false);
  void* stream = Caller::stream();
  const std::string expected = runners->expected(0);
  const EngineInfo info = runners->info();
  const Results actual = runners->put(0, 0, stream);
  runners.reset();
  CHECK(contents(actual, info) == expected);
  Caller::synchronize(stream);
  CHECK(contents(actual, info) == expected && Caller::count("driver_contexts") == 0);
}

// When a failure is returned, whatever was put on the stream before it is done: the caller may free its memory.
void test_a_failure_leaves_nothing_under_way(const nlohmann::ordered_json& plan, bool on_own_stream) {
  Runners runners(plan, true, false);
  void* stream = on_own_stream ? kOwn : Caller::stream();
  const std::string expected = runners.expected(3);
  const size_t mask = runners.info().outputs.front().bytes;  // the first output is copied before the refusal
  for (const char* call : {"cuMemcpyDtoHAsync_v2", "cuMemcpyHtoDAsync_v2", "cuStreamWaitEvent", "cuGraphLaunch"}) {
    const bool is_late = std::string(call) == "cuMemcpyDtoHAsync_v2";
    const WindowInputs inputs = WindowInputs::of_film(runners.manifest, 3);
    Results actual(runners.info());
    Caller::refuse(call, is_late ? 1 : 0);
    const Status status = runners.gpu->run(inputs.frames(), actual.outputs(), stream);
    CHECK(status.code == Code::kFailure);
    CHECK_TEXT(status.message, "the GPU refused a call\n  got:     CUDA_ERROR");
    const std::string left = contents(actual, runners.info());
    CHECK((left.substr(0, mask) == expected.substr(0, mask)) == is_late);
    Caller::synchronize(Caller::stream());
    CHECK(contents(actual, runners.info()) == left);
    const Results next = runners.put(5, 0, stream);
    if (stream != kOwn) Caller::synchronize(stream);
    CHECK(contents(next, runners.info()) == runners.expected(5));
  }
  CHECK(Caller::count("driver_contexts") == 0);
}

// A context that cannot be made current is a failure, and no other context is popped.
void test_a_context_that_is_refused(const nlohmann::ordered_json& plan) {
  Runners runners(plan, true, false);
  const WindowInputs inputs = WindowInputs::of_film(runners.manifest, 0);
  Results actual(runners.info());
  Caller::refuse("cuCtxPushCurrent_v2", 0);
  const Status status = runners.gpu->run(inputs.frames(), actual.outputs(), nullptr);
  CHECK(status.code == Code::kFailure && Caller::count("driver_contexts") == 0);
  CHECK_TEXT(status.message, "the GPU refused a call\n  got:     CUDA_ERROR");
  Caller::refuse("cuCtxPushCurrent_v2", 0);
  CHECK_TEXT(refusal([] { CudaDevice(0); }), "the GPU's context cannot be made current\n  got:     CUDA_ERROR");
  Caller::refuse("cuStreamCreate", 0);
  CHECK_TEXT(refusal([] { CudaDevice(0); }), "the CUDA driver refused a call: CUDA_ERROR\n  got:     cuStreamCreate");
  CHECK(Caller::count("driver_contexts") == 0);
  Caller::refuse("cuCtxPushCurrent_v2", 0);
  runners.gpu.reset();
  CHECK(Caller::count("driver_contexts") == 0);
}

// A stage that waits in the middle of a window until it is let go.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_reached = false, is_open = true;

  void pass() {
    std::unique_lock<std::mutex> lock(mutex);
    is_reached = true;
    changed.notify_all();
    changed.wait(lock, [this] { return is_open; });
  }
  void wait_until_reached() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return is_reached; });
  }
  void open() {
    const std::lock_guard<std::mutex> lock(mutex);
    is_open = true;
    changed.notify_all();
  }
};

class GatedLoader final : public EngineLoader {
 public:
  explicit GatedLoader(Gate& gate) : gate_(gate), inner_(checksum_loader()) {}
  std::string described() const override { return "a test"; }
  Device& device() override { return inner_->device(); }
  std::unique_ptr<Engine> load(const Stage& stage) override {
    return std::make_unique<Gated>(gate_, inner_->load(stage));
  }

 private:
  class Call final : public BoundCall {
   public:
    Call(Gate& gate, std::unique_ptr<BoundCall> inner) : gate_(gate), inner_(std::move(inner)) {}
    Failure launch(Stream stream) noexcept override {
      gate_.pass();
      return inner_->launch(stream);
    }

   private:
    Gate& gate_;
    std::unique_ptr<BoundCall> inner_;
  };
  class Gated final : public Engine {
   public:
    Gated(Gate& gate, std::unique_ptr<Engine> inner) : gate_(gate), inner_(std::move(inner)) {}
    size_t scratch() const override { return inner_->scratch(); }
    std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                    void* scratch) override {
      return std::make_unique<Call>(gate_, inner_->bind(inputs, outputs, scratch));
    }

   private:
    Gate& gate_;
    std::unique_ptr<Engine> inner_;
  };

  Gate& gate_;
  std::unique_ptr<EngineLoader> inner_;
};

void test_a_second_thread_is_refused(const nlohmann::ordered_json& plan) {
  const Manifest manifest = parse_manifest(plan.dump(), "");
  Gate gate;
  GatedLoader loader(gate);
  WindowRunner runner(manifest, loader, constants_of(manifest), options_for(manifest));
  const WindowInputs inputs(manifest, 1), other(manifest, 2);
  Results expected(runner.info()), actual(runner.info()), none(runner.info());
  CHECK(runner.run(inputs.frames(), expected.outputs(), nullptr).ok());
  const std::string untouched = contents(none, runner.info());
  gate.is_reached = gate.is_open = false;
  Status first{Code::kFailure, ""};
  std::thread thread([&] { first = runner.run(inputs.frames(), actual.outputs(), nullptr); });
  gate.wait_until_reached();
  const Status second = runner.run(other.frames(), none.outputs(), nullptr);
  CHECK(second.code == Code::kUsage);
  CHECK_TEXT(second.message, "another thread runs a window of this pipeline\n  allowed: one thread at a time");
  gate.open();
  thread.join();
  CHECK(first.ok() && contents(actual, runner.info()) == contents(expected, runner.info()) &&
        contents(none, runner.info()) == untouched);
  CHECK(runner.run(other.frames(), none.outputs(), nullptr).ok());
}

}  // namespace

int main() {
  const nlohmann::ordered_json all = vectors("plans.json");
  for (const bool use_graph : {true, false}) {
    for (const char* name : {"default", "memory", "pi3", "vggt"}) {
      test_every_order(plan_named(name), use_graph, false);
      test_threads_one_after_another(plan_named(name), use_graph);
      test_goes_while_a_window_is_under_way(plan_named(name), use_graph);
    }
    for (const auto& plan : all["slides"]) test_every_order(plan["manifest"], use_graph, true);
  }
  for (const char* name : {"default", "pi3"}) {
    test_a_failure_leaves_nothing_under_way(plan_named(name), true);
    test_a_failure_leaves_nothing_under_way(plan_named(name), false);
  }
  test_a_context_that_is_refused(plan_named("default"));
  test_a_second_thread_is_refused(plan_named("default"));
}
