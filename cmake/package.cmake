# `cmake --install` and the Debian package (cpack): the three programs, the units of systemd, examples of their settings, the guides and
# what they name.
include(GNUInstallDirs)
set(BELLWETHER_NVCC)
if(NVCC)
  set(BELLWETHER_NVCC ${NVCC})
endif()
install(TARGETS bellwether bellwether-coordinator bellwether-worker RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# Theirs are the system's libraries.
install(CODE "foreach(program bellwether bellwether-coordinator bellwether-worker)
  file(RPATH_REMOVE FILE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/\${program}\")
endforeach()")
install(FILES deploy/systemd/bellwether.service deploy/systemd/bellwether-coordinator.service
        deploy/systemd/bellwether-worker@.service DESTINATION lib/systemd/system)
install(FILES deploy/systemd/bellwether.sysusers DESTINATION lib/sysusers.d RENAME bellwether.conf)
install(FILES deploy/etc/up.conf.example deploy/etc/coordinator.conf.example deploy/etc/worker.conf.example
        deploy/systemd/gpu.conf
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN *.md PATTERN images EXCLUDE)
install(PROGRAMS tools/make_certificates.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/bellwether/tools)
install(DIRECTORY monitoring DESTINATION ${CMAKE_INSTALL_DATADIR}/bellwether PATTERN *.py EXCLUDE)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
# What the programs are made of is known once they are there.
install(CODE "execute_process(COMMAND /usr/bin/python3 -B ${CMAKE_SOURCE_DIR}/tools/make_sbom.py ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
  ${PROJECT_VERSION} ${BELLWETHER_NVCC} OUTPUT_FILE ${CMAKE_BINARY_DIR}/bellwether.spdx.json COMMAND_ERROR_IS_FATAL ANY)")
install(FILES ${CMAKE_BINARY_DIR}/bellwether.spdx.json DESTINATION ${CMAKE_INSTALL_DATADIR}/bellwether)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME bellwether)
set(CPACK_PACKAGE_CONTACT "Bellwether <bellwether@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Serves large language models with a flock of small machines")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_SOURCE_DIR}/cmake/package_version.cmake)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/deploy/debian/postinst ${CMAKE_SOURCE_DIR}/deploy/debian/prerm
    ${CMAKE_SOURCE_DIR}/deploy/debian/postrm)
# For systemd-sysusers; images have it without a service manager.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers")
# tools/make_certificates.sh
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS openssl)
include(CPack)
