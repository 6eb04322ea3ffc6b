# embed_kernels(<pack> <folder>): unpacks a kernel pack and writes what puts its attention kernels into a library,
# <folder>/kernels.cpp (the table) and <folder>/kernels.s (the code). Runs when the build is configured.

function(embed_kernels pack folder)
  set(unpacked ${folder}/pack)
  file(REMOVE_RECURSE ${unpacked})
  file(MAKE_DIRECTORY ${unpacked})
  execute_process(COMMAND ${CMAKE_COMMAND} -E tar xf ${pack} WORKING_DIRECTORY ${unpacked} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "the kernel pack cannot be read\n  got:     ${pack}\n  try:     page4d plugins build")
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pack})

  file(GLOB infos RELATIVE ${unpacked} ${unpacked}/*/*.json)
  list(SORT infos)
  set(seen "")  # parameter tables: architectures share them, and reading one takes most of the time
  set(tables "")
  set(entries "")
  set(symbols "")
  set(codes "")
  foreach(info IN LISTS infos)
    file(READ ${unpacked}/${info} json)
    foreach(key kernel dtype chip entry threads shared parameters)
      string(JSON ${key} GET "${json}" ${key})
    endforeach()
    if(NOT kernel MATCHES "^(attention_.*|prepare|merge)$")
      continue()  # a kernel of the Python runtime without TensorRT
    endif()
    foreach(key queries keys descriptors)
      string(JSON ${key} GET "${json}" tile ${key})
    endforeach()

    string(MD5 table "${parameters}")
    if(NOT table IN_LIST seen)
      list(APPEND seen ${table})
      _parameter_table("${parameters}" rows)
      string(APPEND tables "constexpr Parameter kParameters_${table}[] = {\n${rows}};\n")
    endif()

    string(REPLACE ".json" "" name ${info})
    string(MAKE_C_IDENTIFIER "page4d_code_${name}" symbol)
    string(APPEND symbols "extern const unsigned char ${symbol}[];\n")
    if(chip STREQUAL "ptx")
      set(code ${unpacked}/${name}.ptx)
      set(chip kPtx)
    else()
      set(code ${unpacked}/${name}.cubin)
      string(REPLACE "sm_" "" chip ${chip})
    endif()
    if(NOT EXISTS ${code})
      message(FATAL_ERROR "the kernel pack lacks the code of ${info}\n  got:     ${pack}\n  try:     page4d plugins build")
    endif()
    string(APPEND codes ".balign 64\n.globl ${symbol}\n.hidden ${symbol}\n${symbol}:\n.incbin \"${code}\"\n.byte 0\n")

    set(dtype_fp16 Dtype::kFloat16)
    set(dtype_bf16 Dtype::kBfloat16)
    _cpp_bool(${descriptors} descriptors)
    string(APPEND entries "    {\"${kernel}\", ${dtype_${dtype}}, ${chip}, \"${entry}\", {${queries}, ${keys}, ${descriptors}}, "
                          "${threads}, ${shared}, kParameters_${table}, ${symbol}},\n")
  endforeach()
  file(READ ${unpacked}/pack.json header)
  string(JSON source GET "${header}" source)
  if(NOT infos)
    message(FATAL_ERROR "the kernel pack is empty\n  got:     ${pack}\n  try:     page4d plugins build")
  endif()

  # written only where the content changed
  file(CONFIGURE OUTPUT ${folder}/kernels.s @ONLY
       CONTENT ".section .rodata\n${codes}.section .note.GNU-stack,\"\",%progbits\n")
  file(CONFIGURE OUTPUT ${folder}/kernels.cpp @ONLY
       CONTENT "#include \"kernels/kernel_table.h\"\n\nextern \"C\" {\n${symbols}}\n\nnamespace page4d::plugin {\nnamespace {\n\n${tables}
const Entry kEntries[] = {\n${entries}};\n\n}  // namespace\n\nconst View<Entry> kEmbedded(kEntries);
const char kEmbeddedSource[] = \"${source}\";\n\n}  // namespace page4d::plugin\n")
  # the assembler's source only names the files of code: another pack gives other code with the same source
  set_source_files_properties(${folder}/kernels.s PROPERTIES OBJECT_DEPENDS ${pack})
endfunction()

function(_parameter_table parameters rows)
  set(text "")
  string(JSON count LENGTH "${parameters}")
  math(EXPR last "${count} - 1")
  foreach(i RANGE ${last})
    foreach(key name size floating)
      string(JSON ${key} GET "${parameters}" ${i} ${key})
    endforeach()
    _cpp_bool(${floating} floating)
    string(APPEND text "    {\"${name}\", ${size}, ${floating}},\n")
  endforeach()
  set(${rows} "${text}" PARENT_SCOPE)
endfunction()

function(_cpp_bool value name)  # JSON's true is CMake's ON
  if(value)
    set(${name} true PARENT_SCOPE)
  else()
    set(${name} false PARENT_SCOPE)
  endif()
endfunction()
