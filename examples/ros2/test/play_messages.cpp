// play_messages ENGINES LIBRARY: runs a worker with ONNX Runtime on recorded messages, read from standard input, as the
// node does on messages of its topics. A message is a line
//     camera sec nanosec width height step encoding bytes
// and its data. For each result a line on standard output,
//     camera sec nanosec width height bytes
// and the mask as the node publishes it, mono8 in the size of the camera's image. Ends with 1 if a window failed.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "page4d/error.h"
#include "page4d_ros/worker.h"

using namespace page4d_ros;

namespace {

void write_result(const CameraResult& result, const page4d::Layout& layout, const Region& region) {
  const GreyImage mask = mask_image(result.mask, layout, region, MaskEncoding::kMono8);
  const Stamp stamp = stamp_of(result.stamp);
  std::cout << result.camera << ' ' << stamp.sec << ' ' << stamp.nanosec << ' ' << mask.width << ' ' << mask.height
            << ' ' << mask.data.size() << '\n';
  std::cout.write(reinterpret_cast<const char*>(mask.data.data()), static_cast<std::streamsize>(mask.data.size()));
}

// Until every window that is complete was run: messages come faster than from cameras, and none may be dropped.
void wait_for(const Worker& worker) {
  while (worker.runs().runs + worker.runs().failures < worker.counts().windows)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

int play(const char* engines, const char* library) {
  page4d::Options options;
  options.backend = backend_of("onnxruntime");
  options.onnxruntime_library = library;
  page4d::Pipeline pipeline = page4d::Pipeline::load(engines, options);
  const page4d::Layout& layout = pipeline.info().layout;
  Worker::require(pipeline.info(), static_cast<size_t>(layout.V));
  page4d::RigOptions rig;
  rig.fit = page4d::Fit::kCrop;
  std::optional<Worker> worker;
  Region region;

  int camera = 0;
  Stamp stamp;
  ImageFields fields;
  std::vector<uint8_t> data;
  while (std::cin >> camera >> stamp.sec >> stamp.nanosec >> fields.width >> fields.height >> fields.step >>
         fields.encoding >> fields.size) {
    std::cin.ignore(1);  // the end of the line
    data.resize(fields.size);
    std::cin.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(fields.size));
    fields.data = data.data();
    const page4d::Image image = image_of(fields);
    if (!worker) {
      rig.frame_width = image.width, rig.frame_height = image.height;
      region = region_of(image.width, image.height, layout, rig.fit);
      worker.emplace(pipeline, rig, [&](const CameraResult& result) { write_result(result, layout, region); });
    }
    if (const page4d::Status status = worker->push(camera, image, nanoseconds_of(stamp)); !status)
      throw page4d::Error(status.code, status.message);
    wait_for(*worker);
  }
  if (!worker) throw page4d::Error(page4d::Code::kUsage, "no message on standard input");
  worker->stop();  // the last window's results are written
  if (worker->runs().failures > 0) throw page4d::Error(page4d::Code::kFailure, worker->runs().failure);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) return std::fputs("usage: play_messages ENGINES LIBRARY < MESSAGES\n", stderr), 2;
  return play(argv[1], argv[2]);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "play_messages: %s\n", error.what()), 1;
}
