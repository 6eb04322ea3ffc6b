/* The runtime for C (C89 with stdint.h, or newer) and every language that calls C. Every call that can fail returns a
 * code; 0 is success. A required pointer that is null gives PAGE4D_USAGE, or zeros where a call returns no code. */
#ifndef PAGE4D_PAGE4D_H
#define PAGE4D_PAGE4D_H

#include <stddef.h>
#include <stdint.h>

#include "page4d/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The exit codes of page4d's commands. */
enum page4d_code {
  PAGE4D_OK = 0,
  PAGE4D_FAILURE = 1,
  PAGE4D_USAGE = 2,
  PAGE4D_ACCURACY = 3,
  PAGE4D_INCOMPATIBLE = 4,
  PAGE4D_MISSING_BACKEND = 5,
  PAGE4D_OUT_OF_MEMORY = 6
};

enum page4d_backend { PAGE4D_AUTO = 0, PAGE4D_TENSORRT = 1, PAGE4D_ONNXRUNTIME = 2, PAGE4D_TEST = 3 };
enum page4d_memory { PAGE4D_HOST = 0, PAGE4D_DEVICE = 1 };
/* YUV is BT.601 of limited range; page4d/image.h has what each format is. */
enum page4d_pixels {
  PAGE4D_RGB8 = 0,
  PAGE4D_BGR8 = 1,
  PAGE4D_RGBA8 = 2,
  PAGE4D_BGRA8 = 3,
  PAGE4D_MONO8 = 4,
  PAGE4D_NV12 = 5,
  PAGE4D_NV21 = 6,
  PAGE4D_YUYV = 7,
  PAGE4D_UYVY = 8,
  PAGE4D_BAYER_RGGB8 = 9,
  PAGE4D_BAYER_BGGR8 = 10,
  PAGE4D_BAYER_GBRG8 = 11,
  PAGE4D_BAYER_GRBG8 = 12
};
enum page4d_fit {
  PAGE4D_FIT_NONE = 0,
  PAGE4D_STRETCH = 1,
  PAGE4D_CROP = 2,
  PAGE4D_PAD = 3,
  PAGE4D_PUBLISHED = 4,
  PAGE4D_PUBLISHED_PAD = 5,
  PAGE4D_PUBLISHED_DA3 = 6
};
enum page4d_dtype {
  PAGE4D_UINT8 = 0,
  PAGE4D_INT32 = 1,
  PAGE4D_FLOAT32 = 2,
  PAGE4D_FLOAT16 = 3,
  PAGE4D_BFLOAT16 = 4,
  PAGE4D_FLOAT64 = 5
};
/* What points in the world are made from: depth where there is all that it takes, else points; depth, camera and
 * intrinsics; points. */
enum page4d_points_source { PAGE4D_FROM_BEST = 0, PAGE4D_FROM_DEPTH = 1, PAGE4D_FROM_POINTS = 2 };
enum page4d_missing { PAGE4D_SKIP = 0, PAGE4D_REPEAT = 1 };

typedef struct page4d_pipeline page4d_pipeline;
typedef struct page4d_rig page4d_rig;

/* An image in the caller's memory. Set it to zeros before its members: images lie in arrays, so this struct never
 * grows, and what is reserved may get a meaning. */
typedef struct page4d_image {
  const void* data;
  int32_t width, height;
  size_t pitch;         /* bytes from one row to the next; 0: no padding between rows */
  int32_t pixels;       /* page4d_pixels */
  int32_t memory;       /* page4d_memory */
  const void* chroma;   /* of PAGE4D_NV12, PAGE4D_NV21: the second plane; null: it follows the first */
  size_t chroma_pitch;  /* bytes from one row of the second plane to the next; 0: as many as in the first */
  uint64_t reserved[4]; /* zeros; anything else is PAGE4D_USAGE */
} page4d_image;

/* As an entry of cameras.json; matrices row by row. */
typedef struct page4d_camera {
  int32_t width, height;
  double K[9];
  double world_to_camera[12];
} page4d_camera;

/* All zero: plans on GPU 0 where they run, else ONNX Runtime; images in the engines' size. */
typedef struct page4d_options {
  int32_t backend; /* page4d_backend */
  int32_t device;
  int32_t frame_width, frame_height;
  int32_t fit;             /* page4d_fit */
  int32_t used_files_only; /* whether only files that are loaded are compared with their hashes */
  int32_t no_graph;
  const page4d_camera* cameras; /* one per view, or null */
  int32_t camera_count;
  const char* tensorrt_library;    /* null: libtensorrt_rtx.so or libnvinfer.so */
  const char* plugin_library;      /* null: the one beside this library */
  int32_t sliding;                 /* whether windows overlap: see page4d_frames.shared */
  const char* onnxruntime_library; /* null: libonnxruntime.so, else that of a Python environment */
  int32_t threads;                 /* of ONNX Runtime, for the whole process; 0: every CPU */
  int32_t load_folder_plugins;     /* whether to run the engine folder's library of plugins, if its manifest lists it */
} page4d_options;

/* T*V images, t slow, v fast. */
typedef struct page4d_frames {
  const page4d_image* images;
  const page4d_image* masks;     /* null: none */
  const page4d_image* keypoints; /* null: none */
  const void* memory;            /* of the window before, in host memory; null: the learned initial memory */
  int64_t shared; /* timesteps at its start that ended the window before; of a sliding pipeline, else 0 */
} page4d_frames;

/* Where a result is written; data null: nowhere. */
typedef struct page4d_output {
  void* data;
  size_t bytes;
  int32_t memory; /* page4d_memory */
} page4d_output;

typedef struct page4d_outputs {
  page4d_output mask, memory, points, confidence, camera;
  const page4d_output* layers; /* in the order of the kept layers; null: no layer is written */
  int32_t layer_count;
  page4d_output points_confidence, depth, depth_confidence, intrinsics, metric, sky;
} page4d_outputs;

typedef struct page4d_layout {
  int64_t T, V, H, W, B;
  int64_t registers; /* register tokens of an image */
} page4d_layout;

typedef struct page4d_tensor {
  const char* name; /* valid as long as the pipeline */
  int32_t dtype;    /* page4d_dtype */
  int32_t rank;
  int64_t shape[8];
  size_t bytes;
} page4d_tensor;

/* All lines of the error of this thread's last call that returned a code; valid until its next call. */
PAGE4D_API const char* page4d_last_error(void);

/* Checks an engine folder, without a GPU, and gives its layout. layout and buffer_bytes may be null. */
PAGE4D_API int page4d_inspect(const char* folder, page4d_layout* layout, size_t* buffer_bytes);

/* options null: all zero. */
PAGE4D_API int page4d_load(const char* folder, const page4d_options* options, page4d_pipeline** pipeline);
/* Waits until the last window is done. */
PAGE4D_API void page4d_free(page4d_pipeline* pipeline);
PAGE4D_API page4d_layout page4d_layout_of(const page4d_pipeline* pipeline);
/* The unit of lengths: "metres"; "cameras", that of page4d_options.cameras; null if each window has a scale of its own.
 */
PAGE4D_API const char* page4d_unit(const page4d_pipeline* pipeline);
PAGE4D_API int32_t page4d_output_count(const page4d_pipeline* pipeline);
PAGE4D_API int page4d_output_tensor(const page4d_pipeline* pipeline, int32_t number, page4d_tensor* tensor);
/* As page4d::Pipeline::run: allocates nothing. stream: a cudaStream_t; null: everything is done when the call returns.
 * Windows on several streams run one after the other; pipeline.h says what the caller has to order. One thread at a
 * time: a second one gets PAGE4D_USAGE. */
PAGE4D_API int page4d_run(page4d_pipeline* pipeline, const page4d_frames* frames, const page4d_outputs* outputs,
                          void* stream);

/* As page4d::world_points: every pixel's point in the world, float32 [T,V,H,W,3], from the outputs of a window that is
 * done. source: page4d_points_source. bytes: of target. */
PAGE4D_API int page4d_world_points(const page4d_pipeline* pipeline, const page4d_outputs* outputs, int32_t source,
                                   float* target, size_t bytes);

/* All zero: as page4d::RigOptions, windows without overlap. */
typedef struct page4d_rig_options {
  int64_t stride;
  double tolerance, patience; /* seconds; 0: the default */
  int32_t pending;            /* 0: the default */
  int32_t missing;            /* page4d_missing */
  int32_t windows;            /* 0: the default */
  int32_t frame_width, frame_height;
  int32_t fit;
} page4d_rig_options;

typedef struct page4d_window {
  const page4d_image* images; /* T*V: for page4d_frames.images */
  const double* stamps;
  double skew;
  int64_t number;
  int64_t shared; /* timesteps at its start that ended the window taken before */
} page4d_window;

typedef struct page4d_rig_counts {
  int64_t times, windows, windows_dropped;
  double largest_skew, mean_skew;
} page4d_rig_counts;

typedef struct page4d_camera_counts {
  int64_t pushed, used, late, unmatched, repeated;
  double last_stamp;
} page4d_camera_counts;

/* options null: all zero. */
PAGE4D_API int page4d_rig_make(const page4d_pipeline* pipeline, const page4d_rig_options* options, page4d_rig** rig);
PAGE4D_API void page4d_rig_free(page4d_rig* rig);
/* ready: how many windows can be taken; may be null. One thread per camera may push. */
PAGE4D_API int page4d_rig_push(page4d_rig* rig, int32_t camera, const page4d_image* image, double stamp,
                               int32_t* ready);
/* 1 if a window was taken, 0 if none is ready. Its memory is the rig's, and valid until it is released. */
PAGE4D_API int page4d_rig_take(page4d_rig* rig, page4d_window* window);
PAGE4D_API void page4d_rig_release(page4d_rig* rig);
PAGE4D_API page4d_rig_counts page4d_rig_counts_of(const page4d_rig* rig);
PAGE4D_API page4d_camera_counts page4d_rig_camera_counts(const page4d_rig* rig, int32_t camera);

#ifdef __cplusplus
}
#endif

#endif
