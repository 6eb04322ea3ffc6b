// A live rig: one thread per camera pushes images with stamps, this one takes windows and runs the engines on them.
// A program to copy: the camera's driver calls Rig::push where film() does here.
#include <page4d/pipeline.h>
#include <page4d/rig.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using page4d::Code;
using page4d::Error;
using Clock = std::chrono::steady_clock;

constexpr char kUsage[] = R"(usage: rig ENGINES [NAME VALUE].., simulated cameras, live, through the engines of a folder
  --backend   auto, tensorrt, onnxruntime, or test: checksums in place of the networks (auto)
  --missing   what becomes of a timestep for which a camera has no image: skip, repeat or absent (skip)
  --kill      a camera, from 0, that falls silent (-1: none)
  --from      the second from which on it is (0)
  --seconds   until the cameras stop (3)
  --rate      images a second of each camera (30)
  --jitter    milliseconds of the stamps, to either side (4)
  --stride    timesteps from a window's start to the next's (0: no overlap)
A line per window: its number, the stamps of its oldest and newest image, the largest difference of stamps within a
timestep, the number of images that an older one stands in for, and of those that are absent, the engines' time, and
for each camera the mean of the mask, or of the depth or the confidence of engines without one. Then counts of images.
)";
constexpr char kHead[] = "window   oldest   newest  skew ms repeated  absent       ms  by camera";
constexpr char kCountsHead[] = "camera    pushed      used      late unmatched  repeated    absent";

// Options by name, with their defaults.
using Values = std::map<std::string, std::string>;

[[noreturn]] void refuse(const std::string& name, const std::string& value, const std::string& allowed) {
  throw Error(Code::kUsage, "an option that is not understood").got(name + " " + value).allowed(allowed);
}

double number(const Values& values, const std::string& name, double least, double most) {
  char* end = nullptr;
  const double value = std::strtod(values.at(name).c_str(), &end);
  if (*end != '\0' || !(value >= least && value <= most))
    refuse(name, values.at(name), std::to_string(least) + " to " + std::to_string(most));
  return value;
}

// The position of the value among the names.
int choice(const Values& values, const std::string& name, const std::vector<std::string>& names) {
  std::string allowed;
  for (size_t i = 0; i < names.size(); allowed += names[i++] + " ")
    if (values.at(name) == names[i]) return int(i);
  refuse(name, values.at(name), allowed);
}

struct Simulation {
  int width, height, dead;  // dead: the camera that is silent from the second `death` on
  double seconds, rate, jitter, death;
};

// A camera until its last image: image k shows a square that moves, in front of a gradient.
void film(page4d::Rig& rig, const Simulation& simulation, int camera, Clock::time_point start) {
  const int width = simulation.width, height = simulation.height, side = height / 4;
  std::vector<unsigned char> pixels(size_t(width) * size_t(height) * 3);
  std::mt19937 random{unsigned(camera)};
  std::uniform_real_distribution<double> jitter(-simulation.jitter, simulation.jitter);
  for (int k = 0; k < simulation.seconds * simulation.rate; ++k) {
    const double second = k / simulation.rate, stamp = second + jitter(random);
    if (camera == simulation.dead && second >= simulation.death) return;
    const int left = (5 * k + 40 * camera) % (width - side), top = (3 * k + 20 * camera) % (height - side);
    for (int i = 0; i < width * height; ++i) {
      const int x = i % width, y = i / width;
      const bool inside = x >= left && x < left + side && y >= top && y < top + side;
      pixels[3 * size_t(i)] = static_cast<unsigned char>(inside ? 230 : 60 + 90 * x / width);
      pixels[3 * size_t(i) + 1] = static_cast<unsigned char>(inside ? 80 + 40 * (camera % 4) : 90 + 60 * y / height);
      pixels[3 * size_t(i) + 2] = inside ? 60 : 110;
    }
    std::this_thread::sleep_until(start + std::chrono::nanoseconds(std::llround(stamp * 1e9)));
    const page4d::Pushed pushed = rig.push(camera, {pixels.data(), width, height}, std::llround(stamp * 1e9));
    if (rig.closed()) return;
    if (!pushed.status) return void(std::fprintf(stderr, "rig: camera %d: %s\n", camera, pushed.status.message));
  }
}

// The cameras' threads. Closes the rig and joins them, also where the engines fail.
struct Cameras {
  page4d::Rig& rig;
  std::vector<std::thread> threads;
  ~Cameras() {
    rig.close();
    for (std::thread& thread : threads) thread.join();
  }
};

// Runs the engines on a window and prints a line of it. `first`: whether none has run before.
void run(page4d::Pipeline& pipeline, const page4d::Window& window, page4d::Results& results, bool first) {
  const page4d::Layout& layout = pipeline.info().layout;
  page4d::Frames frames;
  frames.images = window.images, frames.present = window.present;
  if (!first) frames.memory = results.data("memory");  // of the window before; null where the engines have none
  if (!first && pipeline.slides()) frames.shared = window.shared;
  const Clock::time_point before = Clock::now();
  if (const page4d::Status status = pipeline.run(frames, results.outputs()); !status)
    throw Error(status.code, status.message);
  const std::chrono::duration<double> seconds = Clock::now() - before;

  const auto T = size_t(layout.T), V = size_t(layout.V);
  int64_t oldest = INT64_MAX, newest = page4d::kNoStamp;
  int repeated = 0, absent = 0;
  for (size_t i = 0; i < T * V; ++i) {
    repeated += window.repeated[i], absent += window.present[i] == 0;
    if (window.repeated[i] || window.present[i] == 0) continue;
    oldest = std::min(oldest, window.stamps[i]), newest = std::max(newest, window.stamps[i]);
  }
  std::printf("%6lld %8.3f %8.3f %8.2f %8d %7d %8.2f", static_cast<long long>(window.number), double(oldest) / 1e9,
              double(newest) / 1e9, window.skew * 1e3, repeated, absent, seconds.count() * 1e3);
  const char* name = results.mask() != nullptr ? "mask" : results.depth() != nullptr ? "depth" : "confidence";
  const auto* values = static_cast<const float*>(results.data(name));
  const size_t size = values == nullptr ? 0 : pipeline.info().output(name)->bytes / sizeof(float) / (T * V);
  for (size_t v = 0; v < V && size > 0; ++v) {
    double sum = 0;
    for (size_t i = 0; i < T * size; ++i) sum += values[(i / size * V + v) * size + i % size];
    std::printf(" %12.6f", sum / double(T * size));
  }
  std::printf("\n");
}

void run(const std::string& engines, const Values& values) {
  page4d::Options options;
  options.log = [](page4d::LogLevel, const char* message) { std::fprintf(stderr, "page4d: %s\n", message); };
  options.backend = page4d::Backend(choice(values, "--backend", {"auto", "tensorrt", "onnxruntime", "test"}));
  page4d::RigOptions rig_options;
  rig_options.missing = page4d::Missing(choice(values, "--missing", {"skip", "repeat", "absent"}));
  rig_options.stride = int64_t(number(values, "--stride", 0, 1000));
  options.sliding = rig_options.stride > 0;  // timesteps that windows share are encoded once
  Simulation simulation{};
  simulation.seconds = number(values, "--seconds", 0.1, 1e6), simulation.rate = number(values, "--rate", 1, 1000);
  simulation.jitter = number(values, "--jitter", 0, 1000) / 1e3, simulation.death = number(values, "--from", 0, 1e6);
  rig_options.tolerance = 0.45 / simulation.rate;
  rig_options.patience = std::fmax(0.1, 3 / simulation.rate);
  rig_options.pending = int(std::fmin(rig_options.patience * simulation.rate + 3, 1000));

  page4d::Pipeline pipeline = page4d::Pipeline::load(engines, options);
  const page4d::Layout& layout = pipeline.info().layout;
  const int cameras = int(layout.V);
  simulation.width = int(layout.W), simulation.height = int(layout.H);
  simulation.dead = int(number(values, "--kill", -1, cameras - 1));
  page4d::Rig rig(pipeline.info(), rig_options);
  page4d::Results results(pipeline.info());
  std::printf("%s\n\n%s\n", pipeline.described().c_str(), kHead);
  int windows = 0;
  std::atomic<int> filming{cameras};
  {
    Cameras filmed{rig, {}};
    for (int c = 0; c < cameras; ++c)
      filmed.threads.emplace_back([&, c, start = Clock::now()] {
        film(rig, simulation, c, start);
        if (--filming == 0) rig.close();  // ends the wait below; windows that are ready can still be taken
      });
    for (page4d::Window window; rig.wait(INFINITY), rig.take(window); rig.release(window))
      run(pipeline, window, results, windows++ == 0);
  }
  std::printf("\n%d of %d windows were dropped\n\n%s\n", int(rig.counts().windows_dropped), int(rig.counts().windows),
              kCountsHead);
  for (int c = 0; c < cameras; ++c) {
    const page4d::CameraCounts camera = rig.counts(c);
    std::printf("%6d", c);
    for (int64_t count : {camera.pushed, camera.used, camera.late, camera.unmatched, camera.repeated, camera.absent})
      std::printf(" %9d", int(count));
    std::printf("\n");
  }
  if (windows == 0) throw Error(Code::kFailure, "no window was made").hint("more --seconds, --missing repeat");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2 || argv[1][0] == '-') return std::fputs(kUsage, stderr), int(Code::kUsage);
  Values values = {{"--backend", "auto"}, {"--missing", "skip"}, {"--kill", "-1"},  {"--from", "0"},
                   {"--seconds", "3"},    {"--rate", "30"},      {"--jitter", "4"}, {"--stride", "0"}};
  for (int i = 2; i < argc; i += 2) {
    if (values.count(argv[i]) == 0 || i + 1 == argc) refuse(argv[i], "", "a NAME and its VALUE: rig, for all of them");
    values[argv[i]] = argv[i + 1];
  }
  run(argv[1], values);
} catch (const Error& error) {
  return std::fprintf(stderr, "rig: %s\n", error.what()), int(error.code());
} catch (const std::exception& error) {
  return std::fprintf(stderr, "rig: %s\n", error.what()), int(Code::kFailure);
}
