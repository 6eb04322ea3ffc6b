// The TensorRT backend over a stand-in of TensorRT's library and the tests' driver: the test backend's results to the
// bit, and refusals.
#include <dlfcn.h>

#include <thread>

#include "files/files.h"
#include "page4d/pipeline.h"
#include "support/folder.h"
#include "tensorrt/library.h"

extern "C" void stand_in_runtime(bool there) noexcept;
extern "C" long driver_contexts();

using namespace page4d;

namespace {

const std::filesystem::path kFolder = "engines of test_tensorrt";

int type_of(const std::string& dtype) {  // as nvinfer1::DataType counts
  return dtype == "float32" ? 0 : dtype == "float16" ? 1 : dtype == "int32" ? 3 : dtype == "uint8" ? 5 : 7;
}

// The golden plan, with a plan of the stand-in's for every stage.
nlohmann::ordered_json planned(const std::string& name, std::map<std::string, std::string>& plans) {
  auto manifest = plan_named(name);
  auto& entry = manifest["plans"] = {{"library", PAGE4D_STAND_IN_PLANS},
                                     {"version", PAGE4D_STAND_IN_TEXT},
                                     {"chips", {"sm_89"}},
                                     {"kernels", nullptr}};
  for (const auto& stage : manifest["stages"]) {
    std::string text = "plan\n";
    for (const char* way : {"inputs", "outputs"}) {
      for (const auto& spec : stage[way]) {
        text += std::string(way).substr(0, way[0] == 'i' ? 2 : 3) + " " + spec["name"].get<std::string>() +
                spec.value("suffix", "");
        text += " " + std::to_string(type_of(spec["dtype"]));
        for (const auto& size : spec["shape"]) text += " " + size.dump();
        text += "\n";
      }
    }
    const std::string file = stage["name"].get<std::string>() + ".plan";
    plans[file] = text;
    entry["stages"][stage["name"].get<std::string>()] = {
        {"file", file}, {"plugins", 0}, {"fused", 1}, {"seconds", 0.5}};
  }
  return manifest;
}

void write(const nlohmann::ordered_json& manifest, const std::map<std::string, std::string>& plans) {
  auto whole = manifest;
  for (const auto& plan : plans) whole["files"][plan.first] = std::string(64, '0');
  write_folder(kFolder, whole);
  whole = nlohmann::ordered_json::parse(*read_file((kFolder / "manifest.json").string()));
  for (const auto& [file, text] : plans) {
    write_file(kFolder / file, text);
    whole["files"][file] = hash_of(text);
  }
  write_file(kFolder / "manifest.json", whole.dump());
}

// Of the folder; Backend::kAuto would take ONNX Runtime where they do not run.
Pipeline load_plans() {
  Options options;
  options.backend = Backend::kTensorrt;
  return Pipeline::load(kFolder.string(), options);
}

std::string results_of(Pipeline& pipeline, void* stream) {
  const Layout& layout = pipeline.info().layout;
  std::vector<unsigned char> pixels(static_cast<size_t>(layout.image_bytes()));
  const std::vector<Image> images(static_cast<size_t>(layout.images()),
                                  {pixels.data(), static_cast<int>(layout.W), static_cast<int>(layout.H)});
  Results results(pipeline.info());
  std::string all;
  for (unsigned window = 0; window < 3; ++window) {
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<unsigned char>(i * 31 + window);
    const Status status = pipeline.run({images.data()}, results.outputs(), stream);
    CHECK_TEXT(status.message, "");
    if (stream != nullptr) {
      static const auto synchronize =
          reinterpret_cast<int (*)(void*)>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuStreamSynchronize"));
      CHECK(synchronize(stream) == 0);
    }
    for (const Tensor& tensor : pipeline.info().outputs)
      all.append(static_cast<const char*>(results.data(tensor.name)), tensor.bytes);
  }
  return all;
}

void test_results(const std::string& name) {
  std::map<std::string, std::string> plans;
  const auto manifest = planned(name, plans);
  write(manifest, plans);
  Options options;
  Pipeline pipeline = Pipeline::load(kFolder.string(), options);
  CHECK(pipeline.warnings().empty());
  const std::string described = pipeline.described();
  CHECK(described.find(PAGE4D_STAND_IN_TEXT) != std::string::npos && described.find(" on no GPU") != std::string::npos);
  static const auto make_stream =
      reinterpret_cast<int (*)(void**, unsigned)>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuStreamCreate"));
  void* stream = nullptr;
  CHECK(make_stream(&stream, 0) == 0);
  options.backend = Backend::kTest;
  Pipeline expected = Pipeline::load(kFolder.string(), options);
  const std::string actual = results_of(pipeline, stream);
  CHECK(actual == results_of(expected, nullptr) && actual == results_of(pipeline, nullptr));
}

void test_refusals() {
  std::map<std::string, std::string> plans;
  const auto manifest = planned("default", plans);
  const auto first_line_of = [&](const auto& spoil) {
    auto spoiled = plans;
    auto changed = manifest;
    spoil(spoiled, changed);
    write(changed, spoiled);
    const std::string message = refusal([] { load_plans(); });
    return first_line(message);
  };
  using Plans = std::map<std::string, std::string>;
  using Json = nlohmann::ordered_json;
  CHECK_TEXT(first_line_of([](Plans& p, Json&) { p["mask_head.plan"] = "something else"; }),
             PAGE4D_STAND_IN_NAME " " PAGE4D_STAND_IN_TEXT " does not load mask_head.plan");
  CHECK_TEXT(
      first_line_of([](Plans& p, Json&) { p["encoder.plan"].replace(p["encoder.plan"].find("images"), 6, "photos"); }),
      "the plan of encoder has no tensor images");
  CHECK_TEXT(first_line_of(
                 [](Plans& p, Json&) { p["encoder.plan"].replace(p["encoder.plan"].find("images 5"), 8, "images 0"); }),
             "the plan of encoder has another images than the manifest");
  CHECK_TEXT(
      first_line_of([](Plans& p, Json&) { p["encoder.plan"].replace(p["encoder.plan"].find(" 56 70"), 6, " 70 56"); }),
      "the plan of encoder has another images than the manifest");
  CHECK_TEXT(first_line_of([](Plans&, Json& m) { m["plans"]["version"] = "9.9.9"; }),
             "the plans were built by another " PAGE4D_STAND_IN_NAME);
  CHECK_TEXT(first_line_of([](Plans&, Json& m) { m["plans"]["chips"] = {"sm_120"}; }),
             "the plans were built for other GPUs than this one");
  CHECK_TEXT(first_line_of([](Plans&, Json& m) { m["plans"]["kernels"] = std::string(64, 'a'); }),
             "the attention plugins that the plans need are not there");
}

// A driver that TensorRT does not start with: a refusal, and the caller's thread keeps its context.
void test_no_runtime() {
  std::map<std::string, std::string> plans;
  write(planned("default", plans), plans);
  stand_in_runtime(false);
  CHECK_TEXT(
      refusal([] { load_plans(); }), PAGE4D_STAND_IN_NAME
      " does not start\n  got:     the driver is too old\n  try:     a newer NVIDIA driver, or another TensorRT");
  CHECK(driver_contexts() == 0);
  stand_in_runtime(true);
  load_plans();
  CHECK(driver_contexts() == 0);
}

// Each pipeline gives its own failure, also after another one failed.
void test_calls_that_fail() {
  std::map<std::string, std::string> plans;
  const auto manifest = planned("default", plans);
  Options options;
  options.backend = Backend::kTensorrt;
  options.use_graph = false;
  const auto loaded = [&](const std::string& refusal) {
    auto spoiled = plans;
    spoiled["mask_head.plan"] += refusal;
    write(manifest, spoiled);
    return Pipeline::load(kFolder.string(), options);
  };
  CHECK_TEXT(refusal([&] { loaded("fails 0 at_once\n"); }), "mask_head failed\n  got:     at_once");
  CHECK(driver_contexts() == 0);
  Pipeline first = loaded("fails 1 first\n"), second = loaded("fails 2 second\n");
  const Layout& layout = first.info().layout;
  std::vector<unsigned char> pixels(static_cast<size_t>(layout.image_bytes()));
  const std::vector<Image> images(static_cast<size_t>(layout.images()),
                                  {pixels.data(), static_cast<int>(layout.W), static_cast<int>(layout.H)});
  Results results(first.info());
  CHECK(second.run({images.data()}, results.outputs()).ok());
  const Status first_status = first.run({images.data()}, results.outputs()),
               second_status = second.run({images.data()}, results.outputs());
  CHECK(first_status.code == Code::kFailure && second_status.code == Code::kFailure);
  CHECK_TEXT(first_status.message, "mask_head failed\n  got:     first");
  CHECK_TEXT(second_status.message, "mask_head failed\n  got:     second");
}

// TensorRT keeps one logger per process: what it says goes to the pipeline that is loaded or run.
void test_messages() {
  using Messages = std::vector<std::pair<LogLevel, std::string>>;
  std::map<std::string, std::string> plans;
  const auto manifest = planned("default", plans);
  plans["mask_head.plan"] += "warns slow_kernels\nfails 1 broken\n";
  write(manifest, plans);
  Messages messages, of_other;
  Options options;
  options.backend = Backend::kTensorrt;
  options.use_graph = false;
  options.log = [&](LogLevel level, const char* message) { of_other.emplace_back(level, message); };
  const Pipeline other = Pipeline::load(kFolder.string(), options);
  of_other.clear();
  options.log = [&](LogLevel level, const char* message) { messages.emplace_back(level, message); };
  Pipeline pipeline = Pipeline::load(kFolder.string(), options);
  CHECK(messages == (Messages{{LogLevel::kWarning, "slow_kernels"},
                              {LogLevel::kInfo, "slow_kernels"},
                              {LogLevel::kInfo, kFolder.string() + ": " + pipeline.described()}}));
  CHECK(of_other == (Messages{{LogLevel::kInfo, "slow_kernels"}}));  // of a thread of TensorRT's own
  messages.clear();
  const Layout& layout = pipeline.info().layout;
  const std::vector<unsigned char> pixels(static_cast<size_t>(layout.image_bytes()));
  const std::vector<Image> images(static_cast<size_t>(layout.images()),
                                  {pixels.data(), static_cast<int>(layout.W), static_cast<int>(layout.H)});
  CHECK(pipeline.run({images.data()}, {}).code == Code::kFailure);
  CHECK(messages == (Messages{{LogLevel::kError, "broken"}}) && of_other.size() == 1);
}

// Errors come from any thread: each thread reads its own, else the last of any other.
void test_log() {
  using Severity = nvinfer1::ILogger::Severity;
  static TensorrtLog log;
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([number] {
      const std::string own = "thread " + std::to_string(number);
      for (int i = 0; i < 2000; ++i) {
        log.begin();
        log.log(Severity::kERROR, own.c_str());
        log.log(Severity::kWARNING, "no error");
        CHECK_TEXT(log.last().data(), own);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  log.begin();
  CHECK_TEXT(log.last().data(), "");
  std::thread([] { log.log(Severity::kINTERNAL_ERROR, "from a thread of its own"); }).join();
  CHECK_TEXT(log.last().data(), "from a thread of its own");
  log.log(Severity::kERROR, std::string(2000, 'x').c_str());
  CHECK_TEXT(log.last().data(), std::string(511, 'x'));
}

}  // namespace

int main() {
  test_results("default");
  test_results("pi3");
  test_results("vggt");
  test_refusals();
  test_no_runtime();
  test_calls_that_fail();
  test_messages();
  test_log();
  std::filesystem::remove_all(kFolder);
}
