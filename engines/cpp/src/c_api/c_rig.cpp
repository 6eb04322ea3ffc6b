// Rigs in the C interface.
#include <algorithm>
#include <vector>

#include "c_api/c_convert.h"
#include "c_api/c_error.h"
#include "c_api/c_pipeline.h"
#include "page4d/rig.h"

using namespace page4d;

static_assert(PAGE4D_NO_STAMP == kNoStamp);

namespace {

constexpr size_t kFirstRigOptions = PAGE4D_SIZE_UP_TO(page4d_rig_options, fit);
constexpr size_t kFirstWindow = PAGE4D_SIZE_UP_TO(page4d_window, shared);
constexpr size_t kFirstRigCounts = PAGE4D_SIZE_UP_TO(page4d_rig_counts, mean_skew);
constexpr size_t kFirstCameraCounts = PAGE4D_SIZE_UP_TO(page4d_camera_counts, last_stamp);
// a later member would lie in bytes that older programs never set
static_assert(kFirstRigOptions == sizeof(page4d_rig_options) && kFirstWindow == sizeof(page4d_window));
static_assert(kFirstRigCounts == sizeof(page4d_rig_counts) && kFirstCameraCounts == sizeof(page4d_camera_counts));

RigOptions convert(const page4d_rig_options& from) {
  RigOptions to;
  to.stride = from.stride;
  if (from.tolerance != 0) to.tolerance = from.tolerance;
  if (from.patience != 0) to.patience = from.patience;
  if (from.pending != 0) to.pending = from.pending;
  if (from.windows != 0) to.windows = from.windows;
  to.missing = enumerated(from.missing, Missing::kAbsent, "what happens to a missing image");
  to.frame_width = from.frame_width, to.frame_height = from.frame_height;
  to.fit = enumerated(from.fit, Fit::kPublishedDa3, "the fit");
  return to;
}

}  // namespace

struct page4d_rig {
  Rig rig;
  int32_t cameras;
  Window window;  // that was taken; the next two are its images
  std::vector<page4d_image> images;
  std::vector<uint8_t> repeated;

  page4d_rig(const EngineInfo& engines, const RigOptions& options)
      : rig(engines, options),
        cameras(static_cast<int32_t>(engines.layout.V)),
        images(static_cast<size_t>(engines.layout.frames())),
        repeated(images.size()) {}
};

int page4d_rig_make(const page4d_pipeline* pipeline, const page4d_rig_options* options, page4d_rig** rig) {
  if (pipeline == nullptr || rig == nullptr) return refuse_null(pipeline == nullptr ? "pipeline" : "rig");
  *rig = nullptr;
  page4d_rig_options all{};
  if (options != nullptr) {
    if (const int code = read_struct(options, kFirstRigOptions, "page4d_rig_options", all)) return code;
  }
  return guarded([&] { *rig = new page4d_rig(pipeline->pipeline.info(), convert(all)); });
}

void page4d_rig_free(page4d_rig* rig) { delete rig; }

int page4d_rig_push(page4d_rig* rig, int32_t camera, const page4d_image* image, int64_t stamp, int32_t* ready) {
  if (rig == nullptr || image == nullptr) return refuse_null(rig == nullptr ? "rig" : "image");
  Image converted;
  if (!convert(*image, converted)) return remember(Code::kUsage, kImageRefused);
  const Pushed pushed = rig->rig.push(camera, converted, stamp);
  if (ready != nullptr) *ready = pushed.ready;
  return pushed.status.ok() ? PAGE4D_OK : remember(pushed.status.code, pushed.status.message);
}

int page4d_rig_take(page4d_rig* rig, page4d_window* window) {
  if (rig == nullptr || window == nullptr) return refuse_null(rig == nullptr ? "rig" : "window"), -1;
  // before a window is taken, which would be lost
  if (const size_t size = window->struct_size; !is_struct_size(size, kFirstWindow))
    return refuse_struct(SizedStruct::kWrongSize, "page4d_window", size, kFirstWindow), -1;
  if (!rig->rig.take(rig->window)) return 0;
  for (size_t i = 0; i < rig->images.size(); ++i) rig->images[i] = convert(rig->window.images[i]);
  std::copy_n(rig->window.repeated, rig->repeated.size(), rig->repeated.begin());
  page4d_window taken{};
  taken.images = rig->images.data();
  taken.stamps = rig->window.stamps;
  taken.repeated = rig->repeated.data();
  taken.present = rig->window.present;
  taken.skew = rig->window.skew;
  taken.number = rig->window.number;
  taken.shared = rig->window.shared;
  write_struct(taken, kFirstWindow, "page4d_window", window);
  return 1;
}

void page4d_rig_release(page4d_rig* rig) {
  if (rig == nullptr) return static_cast<void>(refuse_null("rig"));
  rig->rig.release(rig->window);
}

int page4d_rig_wait(page4d_rig* rig, double seconds) {
  if (rig == nullptr) return refuse_null("rig"), -1;
  return rig->rig.wait(seconds) ? 1 : 0;
}

void page4d_rig_close(page4d_rig* rig) {
  if (rig == nullptr) return static_cast<void>(refuse_null("rig"));
  rig->rig.close();
}

int page4d_rig_closed(const page4d_rig* rig) {
  if (rig == nullptr) return refuse_null("rig"), 0;
  return rig->rig.closed() ? 1 : 0;
}

int page4d_rig_counts_of(const page4d_rig* rig, page4d_rig_counts* counts) {
  if (rig == nullptr || counts == nullptr) return refuse_null(rig == nullptr ? "rig" : "counts");
  const RigCounts from = rig->rig.counts();
  page4d_rig_counts to{};
  to.times = from.times;
  to.windows = from.windows;
  to.windows_dropped = from.windows_dropped;
  to.windows_with_holes = from.windows_with_holes;
  to.largest_skew = from.largest_skew;
  to.mean_skew = from.mean_skew;
  return write_struct(to, kFirstRigCounts, "page4d_rig_counts", counts);
}

int page4d_rig_camera_counts(const page4d_rig* rig, int32_t camera, page4d_camera_counts* counts) {
  if (rig == nullptr || counts == nullptr) return refuse_null(rig == nullptr ? "rig" : "counts");
  if (camera < 0 || camera >= rig->cameras) return remember(Code::kUsage, "there is no such camera");
  const CameraCounts from = rig->rig.counts(camera);
  page4d_camera_counts to{};
  to.pushed = from.pushed;
  to.used = from.used;
  to.late = from.late;
  to.unmatched = from.unmatched;
  to.repeated = from.repeated;
  to.absent = from.absent;
  to.last_stamp = from.last_stamp;
  return write_struct(to, kFirstCameraCounts, "page4d_camera_counts", counts);
}
