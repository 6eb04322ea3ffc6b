#include "arguments.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "page4d/error.h"
#include "text.h"

namespace offline {

using page4d::Code;
using page4d::Error;

const char kHelp[] = R"(Usage: offline ENGINES FRAMES [-o OUT] [OPTIONS]

Run engines over a clip, window by window.

Writes <window>.safetensors (all results), masks/ (overlays), summary.json and report.html; for Pi3's engines also points.ply,
cameras.json and depth/. Where the engines see one time or one view, FRAMES may be a folder of photos.

  ENGINES               engine folder, written by page4d-export
  FRAMES                folder of <camera>/<frame>.png or .jpg, or one that holds such a folder `frames`
  -o, --out DIR         folder to write, new or empty [default: out]
  --backend NAME        tensorrt, or test: no network, every output is a checksum of its inputs [default: tensorrt]
  --stride N            frames from one window's start to the next's; default T, windows without overlap
  --fit NAME            what to do with another aspect ratio than the engines': stretch, crop or pad
  --masks DIR           external dynamic masks, <camera>/<frame>.png; default: `masks` beside the frames
  --keypoints DIR       keypoint maps, <camera>/<frame>.png; default: `keypoints` beside the frames
  --cameras FILE        calibration; default: cameras.json beside the frames
  --min-confidence X    least probability, 0 to 1, of a point in points.ply [default: 0.1]
  --json                the summary as one JSON document on stdout
  -h, --help            this text
)";

namespace {

constexpr char kUsage[] = "offline --help";

template <class Value>
Value choice(const std::string& flag, const std::string& word,
             const std::vector<std::pair<std::string, Value>>& choices) {
  std::vector<std::string> names;
  for (const auto& [name, value] : choices) {
    if (name == word) return value;
    names.push_back(name);
  }
  throw Error(Code::kUsage, flag + " has no such value").got(word).allowed(joined(names));
}

int64_t whole(const std::string& flag, const std::string& word) {
  int64_t value = 0;
  const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (failed != std::errc() || end != word.data() + word.size())
    throw Error(Code::kUsage, flag + " is no number").got(word).allowed("a whole number");
  return value;
}

double number(const std::string& flag, const std::string& word) {
  double value = 0;
  const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (failed != std::errc() || end != word.data() + word.size())
    throw Error(Code::kUsage, flag + " is no number").got(word).allowed("a number");
  return value;
}

}  // namespace

Arguments parse(int count, char** words) {
  Arguments result;
  RunOptions& run = result.run;
  std::vector<std::string> places;
  for (int i = 1; i < count; ++i) {
    std::string flag = words[i];
    if (flag == "-h" || flag == "--help") {
      result.help = true;
      return result;
    }
    if (flag == "--json") {
      result.json = true;
      continue;
    }
    if (flag.size() < 2 || flag[0] != '-') {
      places.push_back(flag);
      continue;
    }
    std::optional<std::string> joined_value;  // --flag=value
    if (const size_t sign = flag.find('='); flag.compare(0, 2, "--") == 0 && sign != std::string::npos) {
      joined_value = flag.substr(sign + 1);
      flag.resize(sign);
    }
    const auto value = [&]() -> std::string {
      if (joined_value) return *joined_value;
      if (i + 1 == count) throw Error(Code::kUsage, flag + " needs a value").hint(kUsage);
      return words[++i];
    };
    if (flag == "-o" || flag == "--out") {
      run.out = value();
    } else if (flag == "--backend") {
      run.backend = choice<page4d::Backend>(
          flag, value(), {{"tensorrt", page4d::Backend::kTensorrt}, {"test", page4d::Backend::kTest}});
    } else if (flag == "--stride") {
      run.stride = whole(flag, value());
    } else if (flag == "--fit") {
      run.fit = choice<page4d::Fit>(
          flag, value(),
          {{"stretch", page4d::Fit::kStretch}, {"crop", page4d::Fit::kCrop}, {"pad", page4d::Fit::kPad}});
    } else if (flag == "--masks") {
      run.companions.masks = value();
    } else if (flag == "--keypoints") {
      run.companions.keypoints = value();
    } else if (flag == "--cameras") {
      run.companions.cameras = value();
    } else if (flag == "--min-confidence") {
      run.min_confidence = number(flag, value());
    } else {
      throw Error(Code::kUsage, "there is no such option").got(flag).hint(kUsage);
    }
  }
  if (places.size() != 2) {
    throw Error(Code::kUsage, "an engine folder and a folder of frames are needed")
        .got(places.empty() ? "nothing" : joined(places))
        .allowed("ENGINES FRAMES")
        .hint(kUsage);
  }
  run.engines = places[0], run.frames = places[1];
  if (!(run.min_confidence >= 0 && run.min_confidence <= 1)) {
    throw Error(Code::kUsage, "--min-confidence is out of range")
        .got(number_text(run.min_confidence))
        .allowed("0 to 1");
  }
  return result;
}

}  // namespace offline
