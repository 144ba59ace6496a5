#!/usr/bin/env python3
"""What the programs are made of, as SPDX 2.3 in JSON on stdout: every package of Debian whose code they link or hold.

Usage: make_sbom.py BIN VERSION [NVCC]. BIN is the folder of the three programs. What is linked the programs themselves say; what is
compiled into them (libraries of headers alone) is what tools/setup.sh declares and nothing links; versions and licences are dpkg's. With the
compiler of CUDA, its runtime is compiled in too. Debian alone. SOURCE_DATE_EPOCH, if set, is when.
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

PROGRAMS = ("bellwether", "bellwether-coordinator", "bellwether-worker")
SETUP = pathlib.Path(__file__).resolve().parent / "setup.sh"

# Debian's short names that SPDX spells otherwise.
SPELLINGS = {
    "Expat": "MIT", "Expat with embedded exception": "MIT", "curl": "curl", "BSD-3-clause": "BSD-3-Clause", "BSD3": "BSD-3-Clause",
    "BSD-3-google": "BSD-3-Clause", "BSD-3-Clause~Google": "BSD-3-Clause", "BSD-4-clause": "BSD-4-Clause",
    "BSD-3-clause-Cambridge with BINARY LIBRARY-LIKE PACKAGES exception": "BSD-3-Clause", "OpenLDAP-2.8": "OLDAP-2.8",
    "BSD-3-clause or GPL-2": "BSD-3-Clause OR GPL-2.0-only", "GPL-2+ or LGPL-3+": "GPL-2.0-or-later OR LGPL-3.0-or-later",
    "LGPL-3+ or GPL-2+": "LGPL-3.0-or-later OR GPL-2.0-or-later",
}
PLAIN = {"Apache-2.0", "BSD-3-Clause", "BSL-1.0", "MIT", "Zlib"}
# By source package: where the file of copyrights is prose, or speaks of programs and not of the library. Read there by hand.
READ = {
    "c-ares": "MIT", "e2fsprogs": "MIT", "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1", "glibc": "LGPL-2.1-or-later",
    "gnutls28": "LGPL-2.1-or-later", "keyutils": "LGPL-2.0-or-later", "krb5": "MIT",
    "libidn2": "LGPL-3.0-or-later OR GPL-2.0-or-later", "libtasn1-6": "LGPL-2.1-or-later", "rtmpdump": "LGPL-2.1-or-later",
}


def said_by(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=60).stdout


def owners(paths):
    """The package that each file is of. dpkg knows files of / by the name that they had before /usr was one with it."""
    names = {path: {path, real, real.removeprefix("/usr"), "/usr" + real} for path in paths for real in [os.path.realpath(path)]}
    found = subprocess.run(["dpkg", "--search", *sorted(set().union(*names.values()))], capture_output=True, text=True, timeout=60).stdout
    packages = {path: line.split(":")[0] for line in found.splitlines() for path in [line.split(": ")[-1]]}
    result = {path: next((packages[name] for name in known if name in packages), None) for path, known in names.items()}
    if strangers := [path for path, package in result.items() if not package]:
        raise LookupError(f"of no package: {', '.join(strangers)}")
    return result


def loaded_files(program):
    """(name as the program asks for it, file) of each library that is loaded with it."""
    return re.findall(r"^\s*(\S+) => (/\S+) \(", said_by("ldd", program), re.M)


def asked_for(program):
    return set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.*?)\]", said_by("readelf", "--dynamic", "--wide", program)))


def fields(package):
    version, architecture, source, homepage, depends = said_by(
        "dpkg-query", "--show", "--showformat=${Version}\n${Architecture}\n${source:Package}\n${Homepage}\n${Depends}", package).split("\n")
    return {"name": package, "version": version, "architecture": architecture, "source": source, "homepage": homepage, "depends": depends}


def licence(package):
    if package["source"] in READ:
        return READ[package["source"]]
    text = pathlib.Path("/usr/share/doc", package["name"], "copyright").read_text(errors="replace")
    stanza = re.search(r"^Files: *\*\s*$(?:\n.+)*?\nLicen[sc]e: *(.+)$", text, re.M)
    name = stanza.group(1).strip() if stanza else ""
    return SPELLINGS.get(name, name if name in PLAIN else "NOASSERTION")


def compiled_in(linked_sources):
    """Declared libraries that no linked package is of: they are headers, and so part of the programs."""
    for declared in said_by(SETUP, "--libraries").split():
        package = fields(declared)
        # The package of a default version only names the package that has the headers.
        while "/usr/include/" not in said_by("dpkg-query", "--listfiles", package["name"]):
            package = fields(re.split(r"[ ,(|]", package["depends"])[0])
        if package["source"] not in linked_sources:
            yield package


def described(package):
    purl = f"pkg:deb/debian/{package['name']}@{package['version']}?arch={package['architecture']}".replace("+", "%2B")
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^a-zA-Z0-9.-]", "-", package["name"]),
        "name": package["name"], "versionInfo": package["version"], "supplier": "Organization: Debian",
        "sourceInfo": f"built from the source package {package['source']}", "homepage": package["homepage"] or "NOASSERTION",
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "copyrightText": "NOASSERTION",
        "licenseConcluded": "NOASSERTION", "licenseDeclared": licence(package),
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }


def cuda_runtime(nvcc):
    version = re.search(r"V([\d.]+)", said_by(nvcc, "--version")).group(1)
    return {"SPDXID": "SPDXRef-cuda-runtime", "name": "cuda-runtime", "versionInfo": version, "supplier": "Organization: NVIDIA",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "copyrightText": "NOASSERTION",
            "licenseConcluded": "NOASSERTION", "licenseDeclared": "LicenseRef-NVIDIA-CUDA-EULA"}


def document(folder, version, nvcc):
    loaded = {program: loaded_files(folder / program) for program in PROGRAMS}
    package_of = owners({path for files in loaded.values() for _, path in files})
    direct = {package_of[path] for program, files in loaded.items() for asked in [asked_for(folder / program)]
              for name, path in files if name in asked}
    linked = {name: fields(name) for name in sorted(set(package_of.values()))}
    inside = list(compiled_in({package["source"] for package in linked.values()}))

    ours = {"SPDXID": "SPDXRef-bellwether", "name": "bellwether", "versionInfo": version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": "Apache-2.0", "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION"}
    packages, relations = [ours], [("SPDXRef-DOCUMENT", "DESCRIBES", ours["SPDXID"])]

    def add(package, relation):
        packages.append(package)
        relations.append((ours["SPDXID"], relation, package["SPDXID"]))

    for name, package in linked.items():
        add(described(package), "DYNAMIC_LINK" if name in direct else "DEPENDS_ON")
    for package in inside:
        add(described(package), "STATIC_LINK")
    extracted = []
    if nvcc:
        add(cuda_runtime(nvcc), "STATIC_LINK")
        extracted = [{"licenseId": "LicenseRef-NVIDIA-CUDA-EULA", "name": "CUDA Toolkit End User License Agreement",
                      "extractedText": "https://docs.nvidia.com/cuda/eula/"}]
    when = int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.datetime.now().timestamp())
    content = hashlib.sha256(json.dumps(packages).encode()).hexdigest()[:16]
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"bellwether-{version}",
        "documentNamespace": f"https://bellwether.invalid/spdx/bellwether-{version}-{content}",
        "creationInfo": {"created": f"{datetime.datetime.fromtimestamp(when, datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
                         "creators": ["Tool: bellwether-make_sbom"]},
        "packages": packages, "hasExtractedLicensingInfos": extracted,
        "relationships": [{"spdxElementId": a, "relationshipType": relation, "relatedSpdxElement": b} for a, relation, b in relations],
    }


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    print(json.dumps(document(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else ""), indent=1))
