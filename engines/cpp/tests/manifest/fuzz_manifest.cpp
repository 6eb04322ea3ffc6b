// A manifest of any content is read or refused. If it is read, buffer plans with and without sliding keep every view
// inside its buffer, and a folder with it loads and runs. `fuzz_manifest [COUNT [SEED]]`. `--verdicts FILE` prints for
// each line of a file, a manifest, whether it is read: Python's fuzzer compares that with its own reader.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "page4d/error.h"
#include "page4d/geometry.h"
#include "page4d/pipeline.h"
#include "runtime/buffer_plan.h"
#include "support/folder.h"

using namespace page4d;

namespace {

void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void check(const BufferPlan& plan) {
  const auto inside = [&](const std::string& buffer, int64_t offset, int64_t size) {
    const auto entry = plan.sizes.find(buffer);
    require(entry != plan.sizes.end() && offset >= 0 && size > 0 && offset + size <= entry->second,
            "a view lies outside of its buffer");
  };
  for (const Call& call : plan.calls) {
    for (const auto* views : {&call.inputs, &call.outputs}) {
      for (const auto& [name, view] : *views) inside(view.buffer, view.offset, view.bytes());
    }
  }
  for (const auto* views : {&plan.starts, &plan.outputs}) {
    for (const auto& [name, view] : *views) inside(view.buffer, view.offset, view.bytes());
  }
  const auto check_gathers = [&](const std::vector<Gather>& gathers) {
    for (const Gather& g : gathers) {
      inside(g.source, g.source_offset, g.rows * g.width);
      inside(g.target, g.target_offset, (g.rows - 1) * g.pitch + g.width);
    }
  };
  for (const Step& step : plan.steps) check_gathers(step.gathers);
  for (const Carry& carry : plan.carries) check_gathers(carry.gathers);
  if (!plan.reference) return;
  for (const BufferView* view : {&plan.reference->select, &plan.reference->special, &plan.reference->tokens})
    inside(view->buffer, view->offset, view->bytes());
}

// Whether it was read.
bool try_one(const std::string& content) {
  try {
    const Manifest manifest = parse_manifest(content, "manifest.json");
    check(BufferPlan::make(manifest));
    const BufferPlan sliding = BufferPlan::make(manifest, true);
    require(static_cast<int64_t>(sliding.carries.size()) ==
                (manifest.layout.B > 1 || !manifest.makes("tokens") ? 0 : manifest.layout.T - 1),
            "a sliding plan keeps nothing");
    check(sliding);
    return true;
  } catch (const Error& error) {
    require(error.code() == Code::kIncompatible, "a manifest is refused with another code");
    return false;
  }
}

using Json = nlohmann::ordered_json;

// Changes some bytes of the text.
std::string damaged(std::string text, std::mt19937& random) {
  const auto below = [&](size_t limit) { return static_cast<size_t>(random() % std::max<size_t>(limit, 1)); };
  for (size_t times = 1 + below(4); times > 0 && !text.empty(); --times) {
    const size_t at = below(text.size());
    switch (below(4)) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.erase(at, 1 + below(30));
        break;
      case 2:
        text.insert(at, text.substr(below(text.size()), 1 + below(30)));
        break;
      default:
        text.resize(at);
        break;
    }
  }
  return text;
}

const Json kValues[] = {0,
                        1,
                        2,
                        3,
                        6,
                        -1,
                        14,
                        25,
                        128,
                        256,
                        65535,
                        1.5,
                        "",
                        "tokens",
                        "memory",
                        "mask",
                        "images",
                        "special",
                        "layers.1",
                        "features.4",
                        "select",
                        "cameras",
                        "camera_encoder",
                        "present",
                        "da3-mono",
                        "encoder",
                        "_out",
                        "float16",
                        "a/b",
                        "../x",
                        true,
                        nullptr,
                        Json::array(),
                        Json::object(),
                        INT64_MAX,
                        INT64_MIN,
                        UINT64_MAX,
                        1e300,
                        Json::array({1}),
                        int64_t{1} << 40};
constexpr size_t kValueCount = sizeof kValues / sizeof *kValues;

// Changes one value of the document.
void change(Json& value, std::mt19937& random) {
  if ((value.is_object() || value.is_array()) && !value.empty() && random() % 12 != 0) {
    auto inner = value.begin();
    std::advance(inner, static_cast<std::ptrdiff_t>(random() % value.size()));
    if (random() % 20 == 0) {
      value.erase(inner);
    } else if (value.is_array() && random() % 20 == 0) {
      value.push_back(Json(*inner));
    } else if (value.is_array() && random() % 20 == 0) {
      std::swap(*inner, value[random() % value.size()]);
    } else {
      change(*inner, random);
    }
    return;
  }
  value = kValues[random() % kValueCount];
}

// Changes a number wherever it stands: most sizes still match afterwards.
void change_everywhere(Json& value, int64_t from, int64_t to) {
  if (value.is_number_integer() && value == from) value = to;
  if (value.is_structured()) {
    for (Json& inner : value) change_everywhere(inner, from, to);
  }
}

// Changes that leave a manifest valid.
void vary(Json& manifest, std::mt19937& random) {
  switch (random() % 6) {
    case 0:
      manifest["weights"] = std::string(random() % 100, 'x');
      break;
    case 1:
      manifest["later"] = kValues[random() % kValueCount].is_number_unsigned() ? Json(1) : kValues[random() % 20];
      break;
    case 2:
      manifest["stages"][random() % manifest["stages"].size()]["flop"] = random() % 1000;
      break;
    case 3:
      manifest["files"][std::string(1 + random() % 20, 'f')] = std::string(64, '0');
      break;
    case 4:
      manifest["made"]["date"] = "never";
      break;
    default:
      manifest["stages"][random() % manifest["stages"].size()]["largest"] = random() % 1000;
      break;
  }
}

// Changes made by hand: the manifest is refused, or its plans keep every view inside its buffer.
void craft(Json& manifest, std::mt19937& random) {
  Json& encoder = manifest.at("stages").at(0);
  int64_t images = 1;
  for (const char* side : {"T", "V", "B"})
    images *= std::clamp<int64_t>(manifest.at("layout").value(side, int64_t{1}), 0, 65535);
  switch (random() % 8) {
    case 0:
      encoder.at("inputs").erase(1);
      break;
    case 1:
      encoder.at("outputs").at(0).at("shape").at(0) = 1;
      encoder["calls"] = 1;
      encoder.at("inputs").at(0).at("shape").at(0) = images;
      break;
    case 2:
      encoder.at("inputs").at(1).at("shape") = {1, encoder.at("inputs").at(1).at("shape").at(1), 1};
      break;
    case 3:
      for (const char* side : {"T", "V", "H", "W", "B"})
        manifest.at("layout")[side] = 65534 / (random() % 4 + 1) / 14 * 14;
      break;
    case 4:
      encoder.at("outputs").insert(encoder.at("outputs").begin(), manifest.at("stages").at(1).at("outputs").at(0));
      break;
    case 5:  // one image a call: right, where all shapes follow
      encoder["calls"] = images, manifest.at("encoder_images") = 1;
      for (const char* way : {"inputs", "outputs"}) {
        for (Json& spec : encoder.at(way)) spec.at("shape").at(0) = 1;
      }
      break;
    case 6:
      std::swap(encoder.at("inputs").at(0), encoder.at("inputs").at(1));
      break;
    default:
      change_everywhere(manifest, static_cast<int64_t>(random() % 260), static_cast<int64_t>(random() % 260));
      break;
  }
}

// A folder with a manifest that was read, and its files, loads and runs; a folder with a changed file is refused.
void try_folder(const Json& manifest, bool damage, std::mt19937& random) {
  static const std::filesystem::path folder = "engines of fuzz_manifest";
  const Manifest parsed = parse_manifest(manifest.dump(), "manifest.json");
  const BufferPlan plan = BufferPlan::make(parsed, true);
  if (plan.total() > (1 << 23) || plan.calls.size() > 100) return;  // seconds
  write_folder(folder, manifest);
  if (damage) {
    auto file = parsed.files.begin();
    std::advance(file, static_cast<std::ptrdiff_t>(random() % parsed.files.size()));
    std::ofstream(folder / file->first, std::ios::app) << "more";
  }
  Options options;
  options.backend = Backend::kTest;
  options.sliding = parsed.layout.B == 1;
  const bool takes_cameras = parsed.reads("fundamental") || parsed.reads("cameras") || random() % 2 == 0;
  for (int64_t v = 0; takes_cameras && v < parsed.layout.V; ++v) {
    Camera camera{
        static_cast<int>(parsed.layout.W), static_cast<int>(parsed.layout.H), {60, 0, 35, 0, 60, 28, 0, 0, 1}, {}};
    for (int i = 0; i < 3; ++i) camera.world_to_camera[5 * i] = 1;
    camera.world_to_camera[3] = 0.3 * static_cast<double>(v);
    options.cameras.push_back(camera);
  }
  try {
    Pipeline pipeline = Pipeline::load(folder.string(), options);
    require(!damage, "a changed file is loaded");
    std::vector<unsigned char> pixels(static_cast<size_t>(parsed.layout.image_bytes()), 7);
    const std::vector<Image> images(
        static_cast<size_t>(parsed.layout.images()),
        {pixels.data(), static_cast<int>(parsed.layout.W), static_cast<int>(parsed.layout.H)});
    std::vector<unsigned char> heat(pixels.size() / 3, 9);
    const std::vector<Image> maps(images.size(),
                                  {heat.data(), images[0].width, images[0].height, 0, PixelFormat::kMono8});
    Results results(pipeline.info());
    Frames frames{images.data()};
    if (parsed.reads("keypoints")) frames.keypoints = maps.data();
    // an image of the first timestep is absent, as far as there is another image
    std::vector<uint8_t> present(images.size(), 1);
    if (parsed.reads("present") && parsed.layout.frames() > 1) present[0] = 0, frames.present = present.data();
    for (int64_t shared = 0; shared < (pipeline.slides() ? parsed.layout.T : 1); ++shared) {
      frames.shared = shared;
      const Status status = pipeline.run(frames, results.outputs());
      require(status.ok(), status.message);
    }
    std::vector<float> world(static_cast<size_t>(parsed.layout.images() * parsed.layout.H * parsed.layout.W) * 3);
    if (results.points() != nullptr && results.camera() != nullptr)
      world_points(pipeline.info(), results.outputs(), world.data());
  } catch (const Error& error) {
    require(damage && error.code() == Code::kIncompatible, error.what());
  }
}

int verdicts(const char* file) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) std::puts(try_one(line) ? "read" : "refused");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "--verdicts") return verdicts(argv[2]);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  const Json all = vectors("plans.json");
  std::mt19937 random(argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1);
  std::vector<Json> bases;
  for (const char* kind : {"plans", "slides"}) {
    for (const Json& entry : all[kind]) bases.push_back(entry["manifest"]);
  }
  for (const Json& entry : vectors("published_plans.json")["plans"]) bases.push_back(entry["manifest"]);
  for (const char* kind : {"plans", "published", "slides"}) {
    for (const Json& entry : vectors("absence/plans.json")[kind]) bases.push_back(entry["manifest"]);
  }
  for (const Json& base : bases) require(try_one(base.dump()), "a golden manifest is refused");
  int read = 0, ran = 0;
  for (int i = 0; i < rounds; ++i) {
    Json changed = bases[random() % bases.size()];
    for (uint32_t times = random() % 3; times > 0; --times) vary(changed, random);
    for (uint32_t times = random() % 3; times > 0; --times) change(changed, random);
    if (i % 5 == 0 && changed.contains("stages") && changed["stages"].is_array()) {
      try {
        craft(changed, random);
      } catch (const Json::exception&) {  // an earlier change removed the value
      }
    }
    std::string text = changed.dump();
    const bool damages = i % 8 == 0;
    if (damages) text = damaged(std::move(text), random);
    if (!try_one(text)) continue;
    ++read;
    if (!damages && read % 10 == 0) try_folder(changed, read % 20 == 0, random), ++ran;
  }
  std::printf("%d of %d manifests were read, %d folders loaded or refused for a changed file\n", read, rounds, ran);
  require(read > rounds / 10 && read < rounds, "the changes are too harsh, or none");
}
