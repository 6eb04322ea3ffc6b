// A manifest of any content is read or refused, and one that is read gives a buffer plan in which every view lies inside its buffer.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "buffer_plan.h"
#include "page4d/error.h"
#include "vectors.h"

using namespace page4d;

namespace {

void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void check(const BufferPlan& plan) {
  const auto inside = [&](const std::string& buffer, int64_t offset, int64_t size) {
    const auto found = plan.sizes.find(buffer);
    require(found != plan.sizes.end() && offset >= 0 && size > 0 && offset + size <= found->second, "a view lies outside of its buffer");
  };
  for (const Call& call : plan.calls) {
    for (const auto* views : {&call.inputs, &call.outputs}) {
      for (const auto& [name, view] : *views) inside(view.buffer, view.offset, view.bytes());
    }
  }
  for (const auto* views : {&plan.starts, &plan.outputs}) {
    for (const auto& [name, view] : *views) inside(view.buffer, view.offset, view.bytes());
  }
  for (const Step& step : plan.steps) {
    for (const Gather& g : step.gathers) {
      inside(g.source, g.source_offset, g.rows * g.width);
      inside(g.target, g.target_offset, (g.rows - 1) * g.pitch + g.width);
    }
  }
}

// Whether it was read.
bool try_one(const std::string& content) {
  try {
    const Manifest manifest = parse_manifest(content, "manifest.json");
    int64_t calls = 0;
    for (const Stage& stage : manifest.stages) calls += stage.calls;
    if (calls < 10000) check(BufferPlan::make(manifest));
    return true;
  } catch (const Error& error) {
    require(error.code() == Code::kIncompatible, "a manifest is refused with another code");
    return false;
  }
}

}  // namespace

#ifdef PAGE4D_LIBFUZZER

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_one(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}

#else

namespace {

using Json = nlohmann::ordered_json;

// Bytes of the text, as damage does it.
std::string damaged(std::string text, std::mt19937& random) {
  const auto below = [&](size_t limit) { return static_cast<size_t>(random() % std::max<size_t>(limit, 1)); };
  for (size_t times = 1 + below(4); times > 0 && !text.empty(); --times) {
    const size_t at = below(text.size());
    switch (below(4)) {
      case 0: text[at] = static_cast<char>(random()); break;
      case 1: text.erase(at, 1 + below(30)); break;
      case 2: text.insert(at, text.substr(below(text.size()), 1 + below(30))); break;
      default: text.resize(at); break;
    }
  }
  return text;
}

// Values of the document, so that most of it stays a manifest.
void change(Json& value, std::mt19937& random) {
  if ((value.is_object() || value.is_array()) && !value.empty() && random() % 12 != 0) {
    auto inner = value.begin();
    std::advance(inner, static_cast<std::ptrdiff_t>(random() % value.size()));
    if (random() % 20 == 0) {
      value.erase(inner);
    } else if (value.is_array() && random() % 20 == 0) {
      value.push_back(*inner);
    } else {
      change(*inner, random);
    }
    return;
  }
  static const Json kValues[] = {0, 1, 2, 3, 6, -1, 14, 25, 128, 256, 65535, 1.5, "", "tokens", "memory", "mask", "images", "layers.1", "encoder", "float16", "a/b", true,
                                 nullptr, Json::array(), Json::object(), INT64_MAX, INT64_MIN, UINT64_MAX, 1e300, Json::array({1}), int64_t{1} << 40};
  value = kValues[random() % (sizeof kValues / sizeof *kValues)];
}

}  // namespace

int main(int count, char** words) {
  const int rounds = count > 1 ? std::atoi(words[1]) : 1000;
  const Json all = vectors("plans.json");
  std::mt19937 random(1);
  int read = 0;
  for (const Json& each : all["plans"]) require(try_one(each["manifest"].dump()), "a golden manifest is refused");
  for (int i = 0; i < rounds; ++i) {
    Json made = all["plans"][random() % all["plans"].size()]["manifest"];
    for (uint32_t times = 1 + random() % 3; times > 0; --times) change(made, random);
    std::string text = made.dump();
    if (i % 4 == 0) text = damaged(std::move(text), random);
    read += try_one(text) ? 1 : 0;
  }
  std::printf("%d of %d manifests were read\n", read, rounds);
  require(read > rounds / 20 && read < rounds, "the changes are too harsh, or none");
}

#endif
