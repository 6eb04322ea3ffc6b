// Windows on a CPU, timed for `page4d bench cpp`. `time_windows ENGINES LIBRARY THREADS` loads and runs one window,
// then one more for each line of standard input, and writes a line each: seconds, CPU seconds of all threads, the most
// bytes of memory that the process has held.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "page4d/pipeline.h"

namespace {

struct Moment {
  std::chrono::steady_clock::time_point time = std::chrono::steady_clock::now();
  double cpu = cpu_seconds();

  static double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& value) {
      return static_cast<double>(value.tv_sec) + 1e-6 * static_cast<double>(value.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }
};

long long peak_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}

void write_since(const Moment& start) {
  const Moment end;
  std::printf("%.6f %.6f %lld\n", std::chrono::duration<double>(end.time - start.time).count(), end.cpu - start.cpu,
              peak_bytes());
  std::fflush(stdout);
}

void run(char** arguments) {
  const Moment loading;
  page4d::Options options;
  options.backend = page4d::Backend::kOnnxruntime;
  options.onnxruntime_library = arguments[2];
  options.threads = std::atoi(arguments[3]);
  page4d::Pipeline pipeline = page4d::Pipeline::load(arguments[1], options);
  const page4d::Layout& layout = pipeline.info().layout;
  const auto count = static_cast<size_t>(layout.images()), pixels = static_cast<size_t>(layout.H * layout.W);
  std::vector<uint8_t> values(count * pixels * 3), none(pixels);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint8_t>(i % 251);
  page4d::Image image;
  image.width = static_cast<int>(layout.W), image.height = static_cast<int>(layout.H);
  std::vector<page4d::Image> images(count, image), keypoints(count, image);
  for (size_t i = 0; i < count; ++i) {
    images[i].data = values.data() + i * pixels * 3;
    keypoints[i].data = none.data();
    keypoints[i].format = page4d::PixelFormat::kMono8;
  }
  page4d::Frames frames;
  frames.images = images.data();
  if (pipeline.info().input("keypoints") != nullptr) frames.keypoints = keypoints.data();
  page4d::Results results(pipeline.info());
  const auto window = [&] {
    if (const page4d::Status status = pipeline.run(frames, results.outputs()); !status)
      throw page4d::Error(status.code, status.message);
  };
  window();
  write_since(loading);
  for (std::string line; std::getline(std::cin, line);) {
    const Moment start;
    window();
    write_since(start);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  run(argv);
} catch (const page4d::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return static_cast<int>(error.code());
}
