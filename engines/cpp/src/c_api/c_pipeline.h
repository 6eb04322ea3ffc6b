// The pipeline's handle in C.
#pragma once

#include <atomic>
#include <utility>
#include <vector>

#include "page4d/page4d.h"
#include "page4d/pipeline.h"

struct page4d_pipeline {
  page4d::Pipeline pipeline;
  std::vector<page4d::Image> images, masks, keypoints;  // of one window, allocated here: a run allocates nothing
  std::atomic_flag running = ATOMIC_FLAG_INIT;          // whether a thread uses these images, or the times of stages

  explicit page4d_pipeline(page4d::Pipeline loaded) : pipeline(std::move(loaded)) {
    for (auto* converted : {&images, &masks, &keypoints})
      converted->resize(static_cast<size_t>(pipeline.info().layout.images()));
  }
};
