// An engine folder from disk to results, and every refusal on the way. Other tests compare the refusals of broken
// folders with Python's.
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <system_error>
#include <thread>

#include "files/files.h"
#include "page4d/pipeline.h"
#include "support/folder.h"
#include "tensorrt/plugins.h"
#include "tensorrt/requirements.h"

using namespace page4d;
namespace fs = std::filesystem;

namespace {

const fs::path kFolder = "engines of test_pipeline";

void test_inspect() {
  write_folder(kFolder, plan_named("pi3"));
  const EngineInfo info = inspect(kFolder.string());
  CHECK(info.layout.T == 1 && info.layout.V == 3 && info.precision == "bfloat16" && info.weights == "seeded");
  CHECK(info.input("images")->shape == (std::vector<int64_t>{1, 3, 56, 70, 3}) && info.input("mask_ext") == nullptr);
  CHECK(info.output("camera")->shape == (std::vector<int64_t>{1, 3, 4, 4}) &&
        info.output("camera")->bytes == 3 * 16 * 8);
  CHECK(info.output("points")->bytes == 3 * 56 * 70 * 3 * 4 && info.output("mask") == nullptr);
  CHECK(info.input("present") == nullptr && !info.takes_present);
  CHECK(info.kept_layers.size() == 1 &&
        info.output("layers." + std::to_string(info.kept_layers[0]))->dtype == DType::kBfloat16);
  CHECK(!info.plans && info.stages.front().name == "encoder" && info.stages.front().flop > 0);
  CHECK(info.buffer_bytes == vectors("plans.json")["plans"][4]["total"]);
}

void test_run() {
  write_folder(kFolder, plan_named("pi3"));
  Options options;
  options.backend = Backend::kTest;
  options.frame_width = 140, options.frame_height = 112;
  Pipeline moved = Pipeline::load(kFolder.string(), options);
  Pipeline pipeline = std::move(moved);
  CHECK(pipeline.warnings().empty() && pipeline.described() == "checksums in place of a network");
  std::vector<unsigned char> pixels(140 * 112 * 3, 77);
  const std::vector<Image> images(3, Image{pixels.data(), 140, 112, 0, PixelFormat::kRgb8, Memory::kHost});
  Results results(pipeline.info());
  CHECK(pipeline.run({images.data()}, results.outputs()).ok());
  const double* pose = results.camera();
  for (int v = 0; v < 3; ++v, pose += 16) {
    for (int row = 0; row < 3; ++row) {
      for (int other = 0; other < 3; ++other) {
        double product = 0;
        for (int k = 0; k < 3; ++k) product += pose[4 * row + k] * pose[4 * other + k];
        CHECK(std::abs(product - (row == other)) < 1e-12);
      }
    }
    CHECK(pose[15] == 1);
  }
  const StageTime* times = pipeline.times();
  CHECK(times[0].seconds > 0);
  for (const StageInfo& stage : pipeline.info().stages) CHECK_TEXT((times++)->stage, stage.name);
  options.frame_width = 200;
  CHECK_TEXT(first_line(refusal([&] { Pipeline::load(kFolder.string(), options); })),
             "the frames' aspect ratio is not the engine's 70x56 (width x height)");
  options.fit = Fit::kCrop;
  Pipeline::load(kFolder.string(), options);
}

void test_files() {
  write_folder(kFolder, plan_named("default"));
  Options options;
  options.backend = Backend::kTest;
  fs::remove(kFolder / "onnx/encoder.onnx");
  CHECK_TEXT(first_line(refusal([&] { Pipeline::load(kFolder.string(), options); })),
             "the engine folder lacks onnx/encoder.onnx");
  CHECK_TEXT(first_line(refusal([&] { inspect(kFolder.string()); })), "the engine folder lacks onnx/encoder.onnx");
  options.files = Files::kUsed;
  Pipeline::load(kFolder.string(), options);
  std::ofstream(kFolder / "onnx/constants.safetensors", std::ios::app) << "more";
  CHECK_TEXT(first_line(refusal([&] { Pipeline::load(kFolder.string(), options); })),
             "onnx/constants.safetensors is not the file that was exported: it was changed or cut short");
  for (const char* name : {"../outside", "/etc/hostname", "onnx/../../outside", "onnx//a", "./onnx/a", "onnx/"}) {
    auto manifest = plan_named("default");
    manifest["files"][name] = std::string(64, '0');
    write_file(kFolder / "manifest.json", manifest.dump());
    CHECK_TEXT(refusal([&] { inspect(kFolder.string()); }),
               std::string("manifest.json names a file outside the engine folder\n  got:     ") + name +
                   "\n  allowed: relative paths inside it");
  }
  auto manifest = plan_named("default");
  manifest["plans"] = {
      {"library", "rtx"}, {"version", "1.7.1"}, {"chips", nlohmann::json::array()}, {"kernels", nullptr}};
  for (const auto& stage : manifest["stages"]) {
    manifest["plans"]["stages"][stage["name"].get<std::string>()] = {
        {"file", "../a.plan"}, {"plugins", 0}, {"fused", 0}, {"seconds", 1}};
  }
  write_file(kFolder / "manifest.json", manifest.dump());
  CHECK_TEXT(first_line(refusal([&] { inspect(kFolder.string()); })), "manifest.json lists stages without a file");
}

// Something else in place of a file is refused without being opened: opening a FIFO would wait for ever.
void test_no_files() {
  const std::string constants = "onnx/constants.safetensors";
  const auto first_line_of = [&](const auto& put) {
    write_folder(kFolder, plan_named("default"));
    fs::rename(kFolder / constants, kFolder / "kept");
    put(kFolder / constants);
    return first_line(refusal([&] { inspect(kFolder.string()); }));
  };
  CHECK_TEXT(first_line_of([](const fs::path& path) { CHECK(mkfifo(path.c_str(), 0600) == 0); }),
             constants + " is a FIFO");
  CHECK_TEXT(first_line_of([](const fs::path& path) { fs::create_directory(path); }), constants + " is a folder");
  CHECK_TEXT(first_line_of([](const fs::path& path) { fs::create_symlink("/dev/zero", path); }),
             constants + " leads out of the engine folder");
  CHECK_TEXT(first_line_of([](const fs::path& path) { fs::create_symlink(path.filename(), path); }).substr(0, 42),
             (constants + " cannot be read: ").substr(0, 42));
  CHECK_TEXT(first_line_of([](const fs::path& path) { fs::create_symlink("../kept", path); }), "nothing is thrown");
  const fs::path link = kFolder.string() + " by another name";
  fs::remove(link);
  fs::create_directory_symlink(fs::absolute(kFolder), link);
  inspect(link.string());
  fs::remove(link);
  fs::rename(kFolder / "manifest.json", kFolder / "elsewhere");
  CHECK(mkfifo((kFolder / "manifest.json").c_str(), 0600) == 0);
  CHECK_TEXT(first_line(refusal([&] { inspect(kFolder.string()); })), "manifest.json is a FIFO");
  fs::remove(kFolder / "manifest.json");
  write_file(kFolder / "manifest.json", std::string(kLargestManifest + 1, ' '));
  CHECK_TEXT(first_line(refusal([&] { inspect(kFolder.string()); })), "manifest.json is too large");
}

// Constants that do not match the manifest, though their hash is right.
void test_wrong_constants() {
  const auto first_line_of = [&](const auto& spoil) {
    write_folder(kFolder, plan_named("memory"));
    nlohmann::ordered_json manifest = nlohmann::ordered_json::parse(*read_file((kFolder / "manifest.json").string()));
    const Manifest parsed = parse_manifest(manifest.dump(), "");
    auto constants = constants_of(parsed);
    auto shapes = constant_shapes(parsed);
    spoil(constants, shapes);
    const std::string content = safetensors(constants, shapes);
    write_file(kFolder / kConstants, content);
    manifest["files"][kConstants] = hash_of(content);
    write_file(kFolder / "manifest.json", manifest.dump());
    return first_line(refusal([&] { read_constants(EngineFolder::open(kFolder.string(), Files::kAll)); }));
  };
  using Values = std::map<std::string, std::vector<float>>;
  using Shapes = std::map<std::string, std::vector<int64_t>>;
  const std::string file = "onnx/constants.safetensors is not as the engines need it";
  CHECK_TEXT(first_line_of([](Values&, Shapes&) {}), "nothing is thrown");
  CHECK_TEXT(first_line_of([](Values& values, Shapes&) { values.erase("memory"); }), file);
  CHECK_TEXT(first_line_of([](Values& values, Shapes&) { values["more"] = {1}; }), file);
  CHECK_TEXT(first_line_of([](Values& values, Shapes&) { values["special"].pop_back(); }), "special in " + file);
  CHECK_TEXT(first_line_of([](Values&, Shapes& shapes) { std::swap(shapes["special"][0], shapes["special"][1]); }),
             "special in " + file);
  CHECK_TEXT(first_line_of([](Values& values, Shapes&) { values["memory"].back() = NAN; }), "memory in " + file);
  CHECK_TEXT(first_line_of([](Values& values, Shapes&) {
               values["more"] = std::vector<float>(size_t{1} << 20);
             }).substr(0, 31),
             "the constants' file is damaged:");
}

// A folder's library is code: it is opened only where it is listed and asked for.
void test_plugins() {
  write_folder(kFolder, plan_named("default"));
  write_file(kFolder / "plugins/libpage4d_plugins.so", "no library");
  const auto first_line_of = [](bool from_folder) {
    return first_line(
        refusal([&] { PluginLibrary::find(EngineFolder::open(kFolder.string(), Files::kAll), "", from_folder); }));
  };
  CHECK_TEXT(first_line_of(false), "the attention plugins that the plans need are not there");
  CHECK_TEXT(first_line_of(true), "the engine folder's plugin library is not listed in its manifest");
  auto manifest = plan_named("default");
  manifest["files"][kPlugins] = std::string(64, '0');
  write_folder(kFolder, manifest);
  CHECK_TEXT(first_line_of(false), "the attention plugins that the plans need are not there");
  CHECK_TEXT(first_line_of(true), "the attention plugins cannot be opened");
  write_file(kFolder / kPlugins, "another");
  CHECK_TEXT(first_line_of(true),
             "plugins/libpage4d_plugins.so is not the file that was exported: it was changed or cut short");
}

// Forbids this process, a short-lived child, to start threads. False if that cannot be done.
bool give_up_threads() {
  const rlimit none{0, 0};
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct no_capabilities[2] = {};
  if (setrlimit(RLIMIT_NPROC, &none) != 0) return false;
  // root has no such limit: another user, without capabilities, who can still read the files
  if (getuid() == 0 && (setresuid(65534, 0, 0) != 0 || syscall(SYS_capset, &header, no_capabilities) != 0))
    return false;
  try {
    std::thread([] {}).join();
  } catch (const std::system_error&) {
    return true;
  }
  return false;
}

// If no thread can be started, the files are read on the calling thread.
void test_without_threads() {
  write_folder(kFolder, plan_named("default"));
  const pid_t child = fork();
  if (child == 0)
    _exit(!give_up_threads() ? 77 : refusal([] { inspect(kFolder.string()); }) == "nothing is thrown" ? 0 : 1);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) std::puts("threads cannot be forbidden here: nothing was tried");
  CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}

// A damaged file of constants is refused, and never read beyond its end.
void test_constants() {
  const std::string path = "constants of test_pipeline";
  const std::string whole = safetensors({{"special", {1, 2, 3}}});
  write_file(fs::absolute(path), whole);
  CHECK(read_constants(path).at("special") == (std::vector<float>{1, 2, 3}));
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file(fs::absolute(path), whole.substr(0, size));
    CHECK_TEXT(first_line(refusal([&] { read_constants(path); })).substr(0, 31), "the constants' file is damaged:");
  }
  for (const char* wrong : {"[8,0]", "[-4,8]", "[0]", "[0,10]", "[0,4611686018427387904]", "\"x\"", "[0.5,8]"}) {
    const std::string header = std::string(R"({"special":{"dtype":"F32","shape":[3],"data_offsets":)") + wrong + "}}";
    const uint64_t length = header.size();
    write_file(fs::absolute(path),
               std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(12, '\0'));
    CHECK_TEXT(first_line(refusal([&] { read_constants(path); })).substr(0, 31), "the constants' file is damaged:");
  }
  fs::remove(path);
  CHECK(converted({1.0f, 0.5f}, DType::kFloat16) == (Bytes{0x00, 0x3c, 0x00, 0x38}));
  // halves to even
  CHECK(converted({1.0f, 1.00390625f, 1.01171875f}, DType::kBfloat16) == (Bytes{0x80, 0x3f, 0x80, 0x3f, 0x82, 0x3f}));
}

void test_requirements() {
  Plans plans{"rtx", "1.7.1", {"sm_89", "sm_120"}, "0123456789abcdef", {}};
  const Machine machine{"TensorRT-RTX", "1.7.1", 89, "0123456789abcdef"};
  require(plans, machine, "engines");
  const auto refusal_on = [&](const Machine& other) { return refusal([&] { require(plans, other, "engines"); }); };
  CHECK_TEXT(refusal_on({"TensorRT-RTX", "1.8.0", 89, "0123456789abcdef"}),
             "the plans were built by another TensorRT-RTX\n  got:     1.7.1\n  allowed: 1.8.0\n  try:     "
             "page4d-export --build-only engines --backend rtx");
  CHECK_TEXT(refusal_on({"TensorRT-RTX", "1.7.1", 86, "0123456789abcdef"}),
             "the plans were built for other GPUs than this one\n  got:     sm_89, sm_120\n  allowed: sm_86\n"
             "  try:     page4d-export --build-only engines --backend rtx --target sm_86");
  for (const int foreign : {87, 90, 100, 110}) {
    CHECK_TEXT(refusal_on({"TensorRT-RTX", "1.7.1", foreign, "0123456789abcdef"}),
               "TensorRT-RTX 1.7.1 does not run on this GPU\n  got:     sm_" + std::to_string(foreign) +
                   "\n  allowed: sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 and newer\n  try:     full TensorRT, or in "
                   "Python --backend cuda");
  }
  CHECK_TEXT(refusal_on({"TensorRT-RTX", "1.7.1", 89, "fedcba9876543210"}),
             "the plans' plugins are of another version of page4d's kernels\n  got:     0123456789ab..\n  allowed: "
             "fedcba987654..\n"
             "  try:     page4d-export --build-only engines --backend rtx");
  plans.chips.clear();
  require(plans, {"TensorRT-RTX", "1.7.1", 121, "0123456789abcdef"}, "engines");
  CHECK_TEXT(first_line(refusal_on({"TensorRT-RTX", "1.7.1", 75, "0123456789abcdef"})),
             "the plans were built for other GPUs than this one");
  plans.least_chip = 89;
  require(plans, {"TensorRT-RTX", "1.7.1", 120, "0123456789abcdef"}, "engines");
  CHECK_TEXT(refusal_on({"TensorRT-RTX", "1.7.1", 86, "0123456789abcdef"}),
             "the plans were built for other GPUs than this one\n  got:     sm_89 and newer\n  allowed: sm_86\n"
             "  try:     page4d-export --fp16: this GPU has no fp8 products");
  write_folder(kFolder, plan_named("default"));
  Options options;
  options.backend = Backend::kTensorrt;
  CHECK_TEXT(refusal([&] { Pipeline::load(kFolder.string(), options); }),
             "the engine folder has no TensorRT plans\n  got:     " + kFolder.string() +
                 "\n  try:     page4d-export --build-only " + kFolder.string() +
                 "; without TensorRT Backend::kOnnxruntime");
  // without plans the default is ONNX Runtime, whose graphs this folder lacks
  CHECK_TEXT(first_line(refusal([] { Pipeline::load(kFolder.string()); })),
             "the engine folder has no graphs for ONNX Runtime on a CPU");
}

}  // namespace

int main() {
  test_inspect();
  test_run();
  test_files();
  test_no_files();
  test_constants();
  test_wrong_constants();
  test_plugins();
  test_without_threads();
  test_requirements();
  fs::remove_all(kFolder);
}
