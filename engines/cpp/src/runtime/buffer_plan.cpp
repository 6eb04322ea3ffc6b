#include "runtime/buffer_plan.h"

#include <algorithm>
#include <optional>
#include <set>

#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

struct Keep {
  size_t call;
  int64_t part, parts;
  BufferView source;
  std::string layer;
};

const BufferView* find(const std::vector<NamedView>& views, const std::string& name) {
  for (const NamedView& view : views) {
    if (view.first == name) return &view.second;
  }
  return nullptr;
}

class Planner {
 public:
  Planner(const Manifest& manifest, bool sliding) : manifest_(manifest), sliding_(sliding) {
    for (const Stage& stage : manifest.stages) {
      for (const TensorSpec& spec : stage.outputs) {
        if (stage.input(spec.name) != nullptr) turn_[spec.name] = 0;
      }
    }
  }

  BufferPlan plan() {
    std::map<std::string, size_t> last;  // stage -> its last call
    for (const Stage& stage : manifest_.stages) {
      add_calls(stage);
      last[stage.name] = plan_.calls.size() - 1;
    }
    const Layout& layout = manifest_.layout;
    if (written_.count("mask") != 0) result("mask", clip_shape({layout.T, layout.V, layout.h(), layout.w()}));
    for (const KeptLayer& kept : manifest_.keep) keep(kept, last);
    if (written_.count("memory") != 0) result("memory", manifest_.spec("memory")->shape);
    const std::pair<const char*, std::vector<int64_t>> predictions[] = {
        {"points", {layout.T, layout.V, layout.H, layout.W, 3}},
        {"points_confidence", {layout.T, layout.V, layout.H, layout.W}},
        {"confidence", {layout.T, layout.V, layout.H, layout.W}},
        {"depth", {layout.T, layout.V, layout.H, layout.W}},
        {"depth_confidence", {layout.T, layout.V, layout.H, layout.W}}};
    for (const auto& [name, shape] : predictions) {
      if (written_.count(name) != 0) result(name, clip_shape(shape));
    }
    for (const char* name : {"camera", "metric"}) {
      if (written_.count(name) != 0) result(name, manifest_.spec(name)->shape);
    }
    if (written_.count("sky") != 0) result("sky", clip_shape({layout.T, layout.V, layout.H, layout.W}));
    add_steps();
    add_carries();
    return std::move(plan_);
  }

 private:
  void add_calls(const Stage& stage) {
    std::vector<NamedView> inputs, outputs;
    for (const TensorSpec& spec : stage.inputs) {
      inputs.emplace_back(spec.binding(), view(spec, stage.calls));
      if (written_.count(spec.name) == 0 && !is_kept(spec.name) && plan_.start(spec.name) == nullptr) {
        plan_.starts.emplace_back(spec.name, inputs.back().second);
      }
    }
    for (auto& [name, turn] : turn_) {
      if (stage.input(name) != nullptr && stage.output(name) != nullptr) turn ^= 1;
    }
    const bool makes_tokens = stage.output("tokens") != nullptr;
    if (makes_tokens) is_encoded_ = sliding_ && stage.kind == "encoder";
    for (const TensorSpec& spec : stage.outputs) outputs.emplace_back(spec.binding(), view(spec, stage.calls));
    if (is_encoded_ && makes_tokens) encoded_ = *find(outputs, stage.output("tokens")->binding());
    for (const TensorSpec& spec : stage.outputs) written_.insert(spec.name);
    for (int64_t number = 0; number < stage.calls; ++number) {
      plan_.calls.push_back({&stage, parts(inputs, number, stage.calls), parts(outputs, number, stage.calls)});
    }
  }

  void keep(const KeptLayer& kept, const std::map<std::string, size_t>& last) {
    const Layout& layout = manifest_.layout;
    const auto parts = static_cast<int64_t>(kept.stages.size());
    const std::string name = text("layers.", kept.layer);
    plan_.outputs.emplace_back(
        name, whole_buffer(name, clip_shape({layout.T, layout.V, layout.N(), kept.streams * parts * manifest_.width}),
                           manifest_.dtype()));
    for (int64_t part = 0; part < parts; ++part) {
      const size_t call = last.at(kept.stages[static_cast<size_t>(part)]);
      const std::string binding = plan_.calls[call].stage->output("tokens")->binding();
      const auto source = std::find_if(plan_.calls[call].outputs.begin(), plan_.calls[call].outputs.end(),
                                       [&](const NamedView& v) { return v.first == binding; });
      keeps_.push_back({call, part, parts, source->second, name});
    }
  }

  void add_steps() {
    int64_t images = 0;
    for (size_t call = 0; call < plan_.calls.size(); ++call) {
      const BufferView* read = find(plan_.calls[call].inputs, "images");
      if (read != nullptr) images += read->shape.front();
      plan_.steps.push_back({call, read != nullptr ? images : 0, {}});
      for (const Keep& kept : keeps_) {
        if (kept.call == call) add_gathers(kept, *plan_.output(kept.layer), plan_.steps.back().gathers);
      }
    }
  }

  void add_carries() {
    // with several clips at once the shared images are not contiguous
    if (!encoded_ || manifest_.layout.B > 1) return;
    const BufferView* start = plan_.start("special");
    if (start == nullptr) return;  // known cameras give them, of one timestep
    const BufferView& special = *start;
    const int64_t images = encoded_->shape.front(), width = encoded_->bytes() / images,
                  special_width = special.bytes() / special.shape.front();
    for (int64_t shared = 1; shared < manifest_.layout.T; ++shared) {
      const int64_t carried = shared * manifest_.layout.V, distance = images - carried;
      plan_.carries.push_back({carried, {}});
      std::vector<Gather>& gathers = plan_.carries.back().gathers;
      // in order, at most `distance` images at once: no image is overwritten before it is read
      for (int64_t first = 0; first < carried; first += distance) {
        const int64_t source = encoded_->offset + (first + distance) * width;
        gathers.push_back({encoded_->buffer, source, encoded_->buffer, encoded_->offset + first * width,
                           std::min(distance, carried - first), width, width});
      }
      // special tokens belong to the place in the window, not to the image
      gathers.push_back(
          {special.buffer, special.offset, encoded_->buffer, encoded_->offset, carried, special_width, width});
    }
  }

  // [S or 1,..,N,C] into its part of [..,N,S*parts*C]; the only stream of a stage is copied to all S.
  static void add_gathers(const Keep& kept, const BufferView& target, std::vector<Gather>& gathers) {
    const auto item = static_cast<int64_t>(bytes_of(target.dtype));
    const int64_t computed = kept.source.shape.front(), width = kept.source.shape.back() * item;
    const int64_t rows = kept.source.bytes() / (computed * width), pitch = target.shape.back() * item;
    for (int64_t stream = 0; stream < pitch / (width * kept.parts); ++stream) {
      const int64_t source = kept.source.offset + std::min(stream, computed - 1) * rows * width;
      gathers.push_back({kept.source.buffer, source, target.buffer,
                         target.offset + (stream * kept.parts + kept.part) * width, rows, width, pitch});
    }
  }

  // The whole tensor of a variable, where it currently is; each call of a stage reads or writes a part.
  BufferView view(const TensorSpec& spec, int64_t calls) {
    std::vector<int64_t> shape = spec.shape;
    shape.front() *= calls;
    return whole_buffer(is_encoded_ && spec.name == "tokens" ? "encoded" : buffer_of(spec.name), std::move(shape),
                        spec.dtype);
  }

  BufferView whole_buffer(const std::string& buffer, std::vector<int64_t> shape, DType dtype) {
    BufferView view{buffer, 0, std::move(shape), dtype};
    int64_t& size = plan_.sizes[buffer];
    size = std::max(size, view.bytes());
    return view;
  }

  void result(const std::string& name, std::vector<int64_t> shape) {
    plan_.outputs.emplace_back(name, BufferView{buffer_of(name), 0, std::move(shape), manifest_.spec(name)->dtype});
  }

  std::string buffer_of(const std::string& name) const {
    const auto turn = turn_.find(name);
    return turn == turn_.end() ? name : text(name, ".", turn->second);
  }

  bool is_kept(const std::string& name) const {
    return std::any_of(manifest_.keep.begin(), manifest_.keep.end(),
                       [&](const KeptLayer& kept) { return name == text("layers.", kept.layer); });
  }

  // With an axis of clips in front if there are several.
  std::vector<int64_t> clip_shape(std::vector<int64_t> shape) const {
    if (manifest_.layout.B > 1) shape.insert(shape.begin(), manifest_.layout.B);
    return shape;
  }

  // The number-th of `of` equal parts along the first axis.
  static std::vector<NamedView> parts(const std::vector<NamedView>& whole, int64_t number, int64_t of) {
    std::vector<NamedView> views = whole;
    for (NamedView& view : views) {
      view.second.shape.front() /= of;
      view.second.offset += number * view.second.bytes();
    }
    return views;
  }

  const Manifest& manifest_;
  const bool sliding_;
  bool is_encoded_ = false;  // whether the current tokens are the encoder's output, which is kept
  std::optional<BufferView> encoded_;
  BufferPlan plan_;
  std::vector<Keep> keeps_;
  std::map<std::string, int> turn_;  // of tensors that alternate between two buffers: which one, 0 or 1
  std::set<std::string> written_;
};

}  // namespace

int64_t BufferView::bytes() const { return static_cast<int64_t>(bytes_of(dtype)) * count_of(shape); }

int64_t BufferPlan::total() const {
  int64_t sum = 0;
  for (const auto& size : sizes) sum += size.second;
  return sum;
}

const BufferView* BufferPlan::start(const std::string& name) const { return find(starts, name); }
const BufferView* BufferPlan::output(const std::string& name) const { return find(outputs, name); }

BufferPlan BufferPlan::make(const Manifest& manifest, bool sliding) {
  BufferPlan plan = Planner(manifest, sliding).plan();
  plan.check();
  return plan;
}

void BufferPlan::check() const {
  const auto inside = [&](const std::string& buffer, int64_t begin, int64_t end) {
    const auto size = sizes.find(buffer);
    if (size != sizes.end() && 0 <= begin && begin < end && end <= size->second) return;
    throw Error(Code::kIncompatible, text("a tensor lies outside of its buffer ", buffer))
        .got(text("bytes ", begin, " to ", end))
        .allowed(text(size == sizes.end() ? 0 : size->second, " bytes"));
  };
  const auto check_views = [&](const std::vector<NamedView>& views) {
    for (const auto& view : views)
      inside(view.second.buffer, view.second.offset, view.second.offset + view.second.bytes());
  };
  const auto check_gathers = [&](const std::vector<Gather>& gathers) {
    for (const Gather& gather : gathers) {
      inside(gather.source, gather.source_offset, gather.source_offset + gather.rows * gather.width);
      inside(gather.target, gather.target_offset,
             gather.target_offset + (gather.rows - 1) * gather.pitch + gather.width);
    }
  };
  for (const Call& call : calls) check_views(call.inputs), check_views(call.outputs);
  check_views(starts), check_views(outputs);
  for (const Step& step : steps) check_gathers(step.gathers);
  for (const Carry& carry : carries) check_gathers(carry.gathers);
}

}  // namespace page4d
