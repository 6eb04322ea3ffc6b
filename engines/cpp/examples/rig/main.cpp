// A live rig: one thread per camera pushes images with stamps, this one takes windows and runs the engines on them.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "arguments.h"
#include "page4d/pipeline.h"
#include "page4d/rig.h"
#include "simulated_camera.h"

namespace {

using arguments::Arguments;
using page4d::Backend;
using page4d::Code;
using page4d::Error;
using page4d::Missing;

constexpr char kHelp[] = R"(rig ENGINES [options]: simulated cameras, live, through the engines in the folder ENGINES

  --backend tensorrt|test   test computes checksums instead of networks, and needs no GPU (tensorrt)
  --seconds S               of the simulated clock (3)
  --rate HZ                 images a second of each camera (30)
  --jitter-ms MS            of the stamps, to either side (4)
  --kill CAMERA@S[-S]       a camera, from 0, that is silent from one second on, or until another
  --missing skip|repeat     what happens to a timestep for which a camera has no image (skip)
  --stride N                timesteps from a window's start to the next's (T: no overlap)
  --speed X                 simulated seconds in a second (1)
  --help

A line per window: its number, the stamps of its first and last timestep, the largest difference of stamps within a
timestep, the number of older images that are used again, the mean of the mask per camera, and the engines' time. Then
the counts of images.
)";

// "CAMERA@SECONDS" or "CAMERA@SECONDS-SECONDS".
void read_kill(const std::string& text, int cameras, Simulation& simulation) {
  const size_t at = text.find('@');
  if (at == std::string::npos)
    Arguments::refuse("--kill has no such value", text, "CAMERA@SECONDS or CAMERA@SECONDS-SECONDS");
  const double camera = Arguments::parse("--kill", text.substr(0, at), 0, cameras - 1);
  if (camera != std::floor(camera)) Arguments::refuse("--kill has no such camera", text, "a whole number");
  simulation.dying = static_cast<int>(camera);
  const size_t until = text.find('-', at);
  simulation.death =
      Arguments::parse("--kill", text.substr(at + 1, until == std::string::npos ? until : until - at - 1), 0, 1e6);
  if (until != std::string::npos)
    simulation.return_at = Arguments::parse("--kill", text.substr(until + 1), simulation.death, 1e6);
}

// Runs windows as they come, each with the memory of the window before.
class Consumer {
 public:
  explicit Consumer(page4d::Pipeline& pipeline) : pipeline_(pipeline), results_(pipeline.info()) {}

  void print_head() const {
    std::printf("window  first s   last s  skew ms  repeated");
    for (int64_t v = 0; v < layout().V; ++v) std::printf("  mask %d", static_cast<int>(v));
    std::printf("       ms\n");
  }

  // Throws the pipeline's Error.
  void run(const page4d::Window& window) {
    const auto before = std::chrono::steady_clock::now();
    page4d::Frames frames;
    frames.images = window.images;
    if (pipeline_.slides()) frames.shared = window.shared;
    if (windows_ > 0) frames.memory = results_.data("memory");  // of the window before; null where there is none
    const page4d::Status status = pipeline_.run(frames, results_.outputs());
    if (!status) throw Error(status.code, status.message);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - before;
    ++windows_;

    int repeated = 0;
    for (int64_t i = 0; i < layout().frames(); ++i) repeated += window.repeated[i];
    std::printf("%6lld %8.3f %8.3f %8.2f %9d", static_cast<long long>(window.number), stamp(window, 0),
                stamp(window, layout().T - 1), window.skew * 1e3, repeated);
    for (int64_t v = 0; v < layout().V; ++v) print_mask(v);
    std::printf(" %8.2f\n", took.count());
    std::fflush(stdout);
  }

  int64_t windows() const { return windows_; }

 private:
  const page4d::Layout& layout() const { return pipeline_.info().layout; }

  // Stamp of a timestep, in seconds: the earliest of its own images.
  double stamp(const page4d::Window& window, int64_t t) const {
    double first = NAN;
    for (int64_t i = t * layout().V; i < (t + 1) * layout().V; ++i)
      if (!window.repeated[i]) first = std::fmin(first, static_cast<double>(window.stamps[i]) / 1e9);
    return first;
  }

  void print_mask(int64_t view) const {
    if (results_.mask() == nullptr) {
      std::printf(" %7s", "-");
      return;
    }
    double sum = 0;
    for (int64_t t = 0; t < layout().T; ++t)
      for (int64_t p = 0; p < layout().P(); ++p) sum += results_.mask()[(t * layout().V + view) * layout().P() + p];
    std::printf(" %7.3f", sum / static_cast<double>(layout().T * layout().P()));
  }

  page4d::Pipeline& pipeline_;
  page4d::Results results_;
  int64_t windows_ = 0;
};

void print_counts(const page4d::Rig& rig, int cameras) {
  const page4d::RigCounts counts = rig.counts();
  std::printf("\ncamera   pushed     used     late unmatched  waiting repeated\n");
  for (int c = 0; c < cameras; ++c) {
    const page4d::CameraCounts camera = rig.counts(c);
    const int64_t waiting = camera.pushed - camera.used - camera.late - camera.unmatched;
    std::printf("%6d %8lld %8lld %8lld %9lld %8lld %8lld\n", c, static_cast<long long>(camera.pushed),
                static_cast<long long>(camera.used), static_cast<long long>(camera.late),
                static_cast<long long>(camera.unmatched), static_cast<long long>(waiting),
                static_cast<long long>(camera.repeated));
  }
  std::printf("\n%lld timesteps, skew %.2f ms on average and %.2f at most; %lld windows, %lld of them dropped\n",
              static_cast<long long>(counts.times), counts.mean_skew * 1e3, counts.largest_skew * 1e3,
              static_cast<long long>(counts.windows), static_cast<long long>(counts.windows_dropped));
}

Code run(int argc, char** argv) {
  const Arguments arguments(
      argc, argv, {"--backend", "--seconds", "--rate", "--jitter-ms", "--kill", "--missing", "--stride", "--speed"});
  if (arguments.has("--help")) {
    std::fputs(kHelp, stdout);
    return Code::kOk;
  }
  const std::string& engines = arguments.engines();
  page4d::Options options;
  options.backend = arguments.choice<Backend>("--backend", {{"tensorrt", Backend::kTensorrt}, {"test", Backend::kTest}},
                                              Backend::kTensorrt);
  Simulation simulation;
  simulation.seconds = arguments.number("--seconds", 3, 0.1, 1e6);
  simulation.rate = arguments.number("--rate", 30, 1, 1000);
  simulation.jitter = arguments.number("--jitter-ms", 4, 0, 1000) / 1e3;
  simulation.speed = arguments.number("--speed", 1, 0.01, 100);
  page4d::RigOptions rig_options;
  rig_options.missing =
      arguments.choice<Missing>("--missing", {{"skip", Missing::kSkip}, {"repeat", Missing::kRepeat}}, Missing::kSkip);
  rig_options.stride = arguments.whole("--stride", 0, 1, 1000);
  rig_options.tolerance = 0.45 / simulation.rate;
  // Threads are late by real seconds: by more simulated seconds if the simulated clock runs faster.
  const double speed = std::fmax(simulation.speed, 1);
  rig_options.patience = std::fmax(0.1 * speed, 3 / simulation.rate);
  rig_options.pending = static_cast<int>(std::fmin(rig_options.patience * simulation.rate + 3, 1000));
  rig_options.windows = static_cast<int>(std::ceil(2 * speed));

  options.sliding = rig_options.stride > 0;  // timesteps that windows share are encoded once
  page4d::Pipeline pipeline = page4d::Pipeline::load(engines, options);
  const page4d::Layout layout = pipeline.info().layout;
  const int cameras = static_cast<int>(layout.V);
  if (arguments.has("--kill")) read_kill(arguments.text("--kill"), cameras, simulation);
  page4d::Rig rig(pipeline.info(), rig_options);
  std::printf("%s\n", pipeline.described().c_str());
  for (const std::string& warning : pipeline.warnings()) std::fprintf(stderr, "page4d: %s\n", warning.c_str());
  std::printf("%d cameras at %g Hz, %lldx%lld, windows of %lld\n\n", cameras, simulation.rate,
              static_cast<long long>(layout.W), static_cast<long long>(layout.H), static_cast<long long>(layout.T));
  Consumer consumer(pipeline);
  consumer.print_head();

  std::atomic<int> filming{cameras};
  std::atomic<bool> stopped{false};
  std::vector<std::thread> threads;
  const auto start = std::chrono::steady_clock::now();
  for (int c = 0; c < cameras; ++c)
    threads.emplace_back([&, c] {
      film(rig, simulation, c, layout, start, stopped);
      --filming;
    });
  // Also when the engines fail, threads are joined before the objects that they use are destroyed.
  Error failure(Code::kOk, "");
  page4d::Window window;
  for (bool over = false; !over && failure.code() == Code::kOk;) {
    over = filming == 0;  // read first: windows of images pushed before are taken below
    if (!over) rig.wait(0.05);
    while (failure.code() == Code::kOk && rig.take(window)) {
      try {
        consumer.run(window);
      } catch (const Error& error) {
        failure = error;
      }
      rig.release(window);
    }
  }
  stopped = true;
  for (std::thread& thread : threads) thread.join();
  if (failure.code() != Code::kOk) throw failure;
  print_counts(rig, cameras);
  if (consumer.windows() == 0)
    throw Error(Code::kFailure, "no window was made").hint("more --seconds, a smaller --jitter-ms, --missing repeat");
  return Code::kOk;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return static_cast<int>(run(argc, argv));
  } catch (const Error& error) {
    std::fprintf(stderr, "page4d: %s\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "page4d: %s\n", error.what());
    return static_cast<int>(Code::kFailure);
  }
}
