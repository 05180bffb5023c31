# ONNX's messages: importer/onnx.proto → C through protobuf-c. Programs link its archive, so that they run where it is not
# installed; the shared library links the shared one, because Debian's archive is not position-independent.
find_program(PROTOC_C protoc-c REQUIRED)
find_library(PROTOBUF_C_SHARED NAMES protobuf-c REQUIRED)
find_library(PROTOBUF_C_STATIC NAMES libprotobuf-c.a protobuf-c REQUIRED)
find_path(Vulkan_INCLUDE_DIR vulkan/vulkan.h REQUIRED)
set(proto_c ${CMAKE_CURRENT_BINARY_DIR}/onnx.pb-c.c)
set(proto_h ${CMAKE_CURRENT_BINARY_DIR}/onnx.pb-c.h)
add_custom_command(OUTPUT ${proto_c} ${proto_h}
    COMMAND ${PROTOC_C} --c_out=${CMAKE_CURRENT_BINARY_DIR} --proto_path=${CMAKE_CURRENT_SOURCE_DIR}/importer
            ${CMAKE_CURRENT_SOURCE_DIR}/importer/onnx.proto
    DEPENDS importer/onnx.proto COMMENT "protobuf-c onnx.proto" VERBATIM)
add_library(hillock_protobuf OBJECT ${proto_c})
target_compile_options(hillock_protobuf PRIVATE -w)
target_include_directories(hillock_protobuf SYSTEM INTERFACE ${CMAKE_CURRENT_BINARY_DIR})
