#include "report.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

namespace offline {
namespace {

constexpr char kStyle[] = R"(:root {
  color-scheme: light dark; --back: #fff; --text: #1b1d22; --dim: #626874; --line: #dfe2e8; --bar: #3a6db5; --other: #9aa1ad; --note: #fff1cc; --edge: #c98a00;
  --link: #1f57a4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #121419; --text: #e6e8ec; --dim: #9aa1ad; --line: #2c3038; --bar: #6b9fe8; --other: #6d7480; --note: #38300f; --edge: #d9a520; --link: #8ab6f2;
  }
}
body {
  margin: 0 auto; max-width: 1100px; padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
a, summary { color: var(--link); }
summary { cursor: pointer; }
.dim { color: var(--dim); }
.note { background: var(--note); border-left: 4px solid var(--edge); padding: .5rem .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; font-weight: normal; }
.n { text-align: right; white-space: nowrap; }
td.bar { width: 50%; vertical-align: middle; }
td.bar div { height: .8rem; min-width: 1px; background: var(--bar); border-radius: 2px; }
td.bar div.other { background: var(--other); }
.pictures th { border: 0; overflow-wrap: break-word; }
.pictures td { border: 0; padding: 0 .5rem .5rem 0; min-width: 9rem; }
.pictures img { display: block; width: 100%; max-width: 24rem; height: auto; border-radius: 6px; }
details { margin: .6rem 0; }
)";

std::string escaped(const std::string& name) {
  std::string result;
  for (char c : as_text(name)) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#x27;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

// A file's path as a link has it: a colon would make a scheme of a name.
std::string address(const std::string& path) {
  std::string result;
  for (char c : path) {
    char code[4];
    const bool plain =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '/' || c == '-' || c == '_' || c == '.' || c == '~';
    std::snprintf(code, sizeof code, plain ? "%c" : "%%%02X", static_cast<unsigned char>(c));
    result += code;
  }
  return result;
}

std::string link(const std::string& path, const std::string& shown) {
  return "<a href=\"" + address(path) + "\">" + escaped(shown) + "</a>";
}

std::string count(int64_t number, const std::string& noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

std::string seconds_text(double seconds) {
  return seconds >= 1 ? fixed(seconds, 2) + " s" : fixed(1000 * seconds, seconds >= 0.1 ? 0 : 1) + " ms";
}

std::string probability_text(const std::optional<double>& value) { return value ? fixed(*value, 3) : "not a number"; }

std::string span(const WindowSummary& window) {
  return escaped(window.first_frame == window.last_frame ? window.first_frame
                                                         : window.first_frame + " to " + window.last_frame);
}

std::string row(const std::string& head, double share, const char* kind, const std::string& cells) {
  const std::string bar = "<td class=\"bar\"><div class=\"" + std::string(kind) +
                          "\" style=\"width:" + fixed(100 * std::clamp(share, 0.0, 1.0), 2) + "%\"></div></td>";
  return "<tr><th scope=\"row\">" + escaped(head) + "</th>" + bar + cells + "</tr>\n";
}

std::string number_cell(const std::string& text) { return "<td class=\"n\">" + text + "</td>"; }

std::string title(const Summary& summary) {
  const auto windows = static_cast<int64_t>(summary.windows.size()),
             cameras = static_cast<int64_t>(summary.cameras.size());
  std::string text =
      count(windows, "window") + " of " + count(summary.layout.T, "time") + ", " + count(cameras, "camera");
  if (summary.has_mask()) return text + ": mask mean " + probability_text(summary.mask_mean());
  size_t points = 0;
  for (const WindowSummary& window : summary.windows) points += window.predictions ? window.predictions->points : 0;
  return summary.has_predictions() ? text + ": " + grouped(static_cast<int64_t>(points)) + " points" : text;
}

std::string head(const Summary& summary) {
  std::string text = "<h1>" + escaped(title(summary)) + "</h1>\n<p class=\"dim\">" +
                     escaped(path_text(summary.frames)) + " &middot; " + escaped(summary.backend) + ", " +
                     escaped(summary.precision) + "</p>\n";
  if (summary.seeded())
    text += std::string("<p class=\"note\" id=\"seeded\"><strong>Not a trained model:</strong> ") +
            summary.seeded_note() + ".</p>\n";
  for (const std::string& warning : summary.warnings) text += "<p class=\"note\">" + escaped(warning) + "</p>\n";
  return text;
}

// A row per camera, a column per time.
std::string overlays(const Summary& summary, const WindowSummary& window) {
  const auto times = static_cast<size_t>(summary.layout.T);
  std::string text = "<div class=\"scroll\"><table class=\"pictures\">\n";
  for (size_t i = 0; i < window.overlays.size(); ++i) {
    const std::string& camera = summary.cameras[i / times];
    const std::filesystem::path path = window.overlays[i];
    const std::string where = address(path.generic_string()), what = escaped(camera + ", " + path.stem().string());
    if (i % times == 0) text += "<tr><th scope=\"row\">" + escaped(camera) + "</th>";
    text += "<td><a href=\"" + where + "\"><img loading=\"lazy\" src=\"" + where + "\" alt=\"" + what + "\" title=\"" +
            what + "\"></a></td>";
    if (i % times == times - 1) text += "</tr>\n";
  }
  return text + "</table></div>\n";
}

std::string windows(const Summary& summary) {
  std::string text = "<h2>Windows</h2>\n";
  if (summary.has_mask()) {
    text +=
        "<p>Each frame with its mask over it, the probability that a patch shows something that moves. Up to 0.4 the "
        "frame is left as it is; from there "
        "the colour, from violet to yellow, hides more of it, up to 0.8. Cyan, if any, is a value that is not a "
        "number.</p>\n";
  }
  for (const WindowSummary& window : summary.windows) {
    text += &window == &summary.windows.front() ? "<details open>" : "<details>";
    text += "<summary><strong>" + escaped(window.name) + "</strong> " + span(window) + " &middot; " +
            seconds_text(window.seconds) + "</summary>\n";
    if (!window.overlays.empty()) text += overlays(summary, window);
    text += "<p>Results: " + link(window.file, window.file);
    if (window.predictions) {
      const PredictionSummary& found = *window.predictions;
      text += " &middot; " + link(found.cloud, found.cloud) + " (" + grouped(static_cast<int64_t>(found.points)) +
              " points) &middot; ";
      text += link(found.cameras, found.cameras);
      text += "</p>\n<p>Depth, 16 bits, one step is " + number_text(found.depth_scale) + ":";
      for (const std::string& path : found.depth) text += " " + link(path, path);
    }
    text += "</p></details>\n";
  }
  return text;
}

std::string masks(const Summary& summary) {
  if (!summary.has_mask()) return "";
  std::string text = "<h2>Mask mean by camera</h2>\n<table>\n";
  for (size_t v = 0; v < summary.cameras.size(); ++v) {
    double sum = 0;
    bool known = true;
    for (const WindowSummary& window : summary.windows) {
      known = known && window.mask_mean[v].second.has_value();
      sum += window.mask_mean[v].second.value_or(0);
    }
    const std::optional<double> mean =
        known ? std::optional(sum / static_cast<double>(summary.windows.size())) : std::nullopt;
    text += row(summary.cameras[v], mean.value_or(0), "", number_cell(probability_text(mean)));
  }
  return text + "</table>\n";
}

// The cameras that were found, of the first window that has some.
std::string rig(const Summary& summary) {
  const auto window = std::find_if(summary.windows.begin(), summary.windows.end(),
                                   [](const WindowSummary& one) { return one.predictions.has_value(); });
  if (window == summary.windows.end()) return "";
  std::string text =
      "<h2>Cameras</h2>\n<p>Positions are in the scene's own unit: the network knows no metres. Focal lengths and the "
      "residual of their fit are "
      "pixels of the photo. Of " +
      escaped(window->name) +
      ".</p>\n<table>\n<tr><th>camera</th><th class=\"n\">position</th>"
      "<th class=\"n\">focal lengths</th><th class=\"n\">residual</th></tr>\n";
  const auto number = [](double value) { return std::isfinite(value) ? fixed(value, 3) : std::string("none"); };
  for (const auto& [name, camera] : window->predictions->rig) {
    text += "<tr><th scope=\"row\">" + escaped(name) + "</th>";
    text +=
        number_cell(number(camera.position[0]) + ", " + number(camera.position[1]) + ", " + number(camera.position[2]));
    text +=
        number_cell(fixed(camera.focal[0], 1) + ", " + fixed(camera.focal[1], 1) + (camera.fitted ? "" : " (a guess)"));
    text += number_cell(number(camera.residual)) + "</tr>\n";
  }
  return text + "</table>\n";
}

std::string times(const Summary& summary) {
  double stages = 0, longest = 1e-9;
  for (const auto& [name, seconds] : summary.stage_seconds) {
    stages += seconds;
    longest = std::max(longest, seconds);
  }
  const Named<double> others = {
      {"Decode", summary.decode_seconds}, {"Write", summary.write_seconds}, {"Startup", summary.startup_seconds}};
  for (const auto& [name, seconds] : others) longest = std::max(longest, seconds);
  std::string text =
      "<h2>Where the time went</h2>\n<p>" + seconds_text(summary.wall_seconds) + " in all; the engines computed for " +
      seconds_text(stages) +
      ".</p>\n<table>\n<tr><th>stage</th><th></th><th class=\"n\">time</th><th class=\"n\">GFLOP/s</th></tr>\n";
  for (size_t i = 0; i < summary.stage_seconds.size(); ++i) {
    const auto& [name, seconds] = summary.stage_seconds[i];
    const auto flop = static_cast<double>(summary.stage_flop[i].second);
    const std::string rate = seconds > 0 && flop > 0 ? fixed(flop / seconds / 1e9, 1) : "";
    text += row(name, seconds / longest, "", number_cell(seconds_text(seconds)) + number_cell(rate));
  }
  for (const auto& [name, seconds] : others)
    text += row(name, seconds / longest, "other", number_cell(seconds_text(seconds)) + number_cell(""));
  return text + "</table>\n";
}

std::string facts(const Summary& summary) {
  const page4d::Layout& layout = summary.layout;
  const auto mebibytes = [](double bytes) { return fixed(bytes / (1 << 20), 1) + " MiB"; };
  std::string shape;
  for (const auto& [name, size] :
       Named<int64_t>{{"T", layout.T}, {"V", layout.V}, {"H", layout.H}, {"W", layout.W}, {"B", layout.B}}) {
    shape += (shape.empty() ? "" : ", ") + name + " " + std::to_string(size);
  }
  const Named<std::string> rows = {
      {"Weights", summary.weights},
      {"Layout", shape},
      {"Precision", summary.precision},
      {"Backend", summary.backend},
      {"Engines", summary.engines},
      {"Frames", summary.frames},
      {"Cameras", joined(summary.cameras)},
      {"Buffers", mebibytes(static_cast<double>(summary.buffer_bytes)) + ", allocated once; without the weights"},
      {"Peak host memory", mebibytes(static_cast<double>(summary.peak_rss_bytes))},
      {"page4d", summary.page4d},
  };
  std::string text = "<h2>Facts</h2>\n<table>\n";
  for (const auto& [name, value] : rows)
    text += "<tr><th scope=\"row\">" + name + "</th><td>" + escaped(value) + "</td></tr>\n";
  return text + "</table>\n<p class=\"dim\">Also " + link(kSummary, kSummary) + ": all of this page as data.</p>\n";
}

}  // namespace

std::string report(const Summary& summary) {
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>page4d: " +
         escaped(title(summary)) + "</title>\n<style>\n" + kStyle + "</style>\n</head>\n<body>\n" + head(summary) +
         windows(summary) + masks(summary) + rig(summary) + times(summary) + facts(summary) + "</body>\n</html>\n";
}

}  // namespace offline
