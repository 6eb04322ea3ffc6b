# What is installed, for find_package(page4d CONFIG) and for pkg-config, in two components, as packages of distributions
# are cut: page4d_runtime for machines that run programs, page4d_development in addition where they are built.
install(TARGETS page4d_runtime EXPORT page4d_targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT page4d_runtime NAMELINK_COMPONENT page4d_development
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT page4d_development)
if(TARGET page4d_plugins)
  install(TARGETS page4d_plugins page4d_plugins_register
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT page4d_runtime)
endif()
set(root ${CMAKE_CURRENT_SOURCE_DIR}/../..)
install(FILES ${root}/LICENSE ${root}/NOTICE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/page4d COMPONENT page4d_runtime)
install(DIRECTORY include/page4d DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT page4d_development)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/page4d)
install(EXPORT page4d_targets NAMESPACE page4d:: DESTINATION ${package} COMPONENT page4d_development)
set(written ${CMAKE_CURRENT_BINARY_DIR}/installed)
configure_package_config_file(cmake/page4d-config.cmake.in ${written}/page4d-config.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${written}/page4d-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${written}/page4d-config.cmake ${written}/page4d-config-version.cmake
  DESTINATION ${package} COMPONENT page4d_development)

# paths are relative to the file's own, so that the prefix may be moved, unless they were asked to be absolute
set(pkgconfig ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(prefix ${CMAKE_INSTALL_PREFIX})
if(NOT IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  file(RELATIVE_PATH up /prefix/${pkgconfig} /prefix)
  string(REGEX REPLACE "/$" "" up ${up})
  set(prefix "\${pcfiledir}/${up}")
endif()
foreach(name LIB INCLUDE)
  set(${name}DIR ${CMAKE_INSTALL_${name}DIR})
  if(NOT IS_ABSOLUTE ${${name}DIR})
    set(${name}DIR "\${prefix}/${${name}DIR}")
  endif()
endforeach()
# what a program in C links in addition, if the library is static: the C++ library above all
set(needed ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES} ${CMAKE_DL_LIBS})
list(FILTER needed EXCLUDE REGEX "^(gcc|gcc_s|c)$")
list(TRANSFORM needed PREPEND -l)
list(JOIN needed " " needed)
set(libraries " ${needed} ${CMAKE_THREAD_LIBS_INIT}")
get_target_property(type page4d_runtime TYPE)
if(type STREQUAL "SHARED_LIBRARY")
  set(libraries "")
endif()
configure_file(cmake/page4d.pc.in ${written}/page4d.pc @ONLY)
install(FILES ${written}/page4d.pc DESTINATION ${pkgconfig} COMPONENT page4d_development)
