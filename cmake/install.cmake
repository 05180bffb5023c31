# What an installed prefix offers: header, libraries, command, pkg-config file, CMake package.
include(CMakePackageConfigHelpers)
install(TARGETS hillock hillock_static EXPORT hillock-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET hillock_command)
    install(TARGETS hillock_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    if(NOT CMAKE_CROSSCOMPILING)
        install(DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1
            FILES_MATCHING PATTERN "*.1")
    endif()
endif()
install(DIRECTORY share/tune DESTINATION ${CMAKE_INSTALL_DATADIR}/hillock) # tables of measurements
install(DIRECTORY include/hillock/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/hillock)
install(EXPORT hillock-targets NAMESPACE hillock:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hillock)
configure_package_config_file(cmake/hillock-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/hillock-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hillock)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/hillock-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/hillock-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/hillock-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hillock)
# A static protobuf-c is inside libhillock.so; the archive needs it named.
configure_file(cmake/hillock.pc.in ${CMAKE_CURRENT_BINARY_DIR}/hillock.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/hillock.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
