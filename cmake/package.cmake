# `cmake --install` and the Debian package (cpack): the three programs, the units of systemd, examples of their settings.
include(GNUInstallDirs)
install(TARGETS bellwether bellwether-coordinator bellwether-worker RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES deploy/systemd/bellwether.service deploy/systemd/bellwether-coordinator.service
        deploy/systemd/bellwether-worker@.service DESTINATION lib/systemd/system)
install(FILES deploy/systemd/bellwether.sysusers DESTINATION lib/sysusers.d RENAME bellwether.conf)
install(FILES deploy/etc/up.conf.example deploy/etc/coordinator.conf.example deploy/etc/worker.conf.example
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES docs/deploy.md docs/security.md README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME bellwether)
set(CPACK_PACKAGE_CONTACT "Bellwether <bellwether@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Serves large language models with a flock of small machines")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/deploy/debian/postinst ${CMAKE_SOURCE_DIR}/deploy/debian/prerm
    ${CMAKE_SOURCE_DIR}/deploy/debian/postrm)
set(CPACK_DEBIAN_PACKAGE_DEPENDS systemd)
include(CPack)
