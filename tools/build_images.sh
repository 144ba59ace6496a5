#!/usr/bin/env bash
# build_images.sh [TARGET ...]: the images of deploy/docker/Dockerfile, made of build/release/bellwether_*.deb without a container engine:
# by Debian's buildah, as root, on a base that mmdebstrap makes as Debian's own slim image is made. Leaves in build/images, of each TARGET
# (coordinator, worker, worker-cuda): TARGET.oci, as a registry would keep it, and TARGET.root, a link to the file system of a container;
# and package/, what package.Dockerfile gives: the same package, built in a container (the first time it takes as long as any build).
set -euo pipefail
cd "$(dirname "$0")/.."

out="$PWD/build/images"
mkdir -p "$out"
buildah() { command buildah --storage-driver vfs --root "$out/store" --runroot "$out/run" "$@"; }

base="$out/base.tar"
if [[ ! -f "$base" ]]; then
  echo "images: making a base of Debian's packages" >&2
  unread=(--dpkgopt='path-exclude=/usr/share/'{doc,man,info,locale}'/*' --dpkgopt='path-include=/usr/share/doc/*/copyright')
  mmdebstrap --quiet --variant=minbase --include=usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --dpkgopt=force-unsafe-io "${unread[@]}" bookworm "$base.new.tar"
  mv "$base.new.tar" "$base"
fi

# What an earlier run has left; a build must not take its layers for today's.
if [[ -d "$out/store" ]]; then
  buildah rm --all >/dev/null
  buildah rmi --all --force >/dev/null
fi
rm -rf "$out"/*.oci "$out"/*.root

container="$(buildah from scratch)"
buildah add --quiet "$container" "$base" / >/dev/null
buildah commit --quiet --rm "$container" localhost/debian >/dev/null

echo "images: building the package in a container" >&2
mkdir -p "$out/ccache"
rm -rf "$out/package"
buildah build --isolation chroot --build-arg BASE=localhost/debian --file deploy/docker/package.Dockerfile \
  --volume "$out/ccache:/root/.cache/ccache" --output "type=local,dest=$out/package" . >"$out/package.log" 2>&1 ||
  { tail -n 40 "$out/package.log" >&2; exit 1; }

for target in "$@"; do
  echo "images: building $target" >&2
  buildah build --isolation chroot --layers --build-arg BASE=localhost/debian --file deploy/docker/Dockerfile --target "$target" \
    --tag "bellwether-$target" . >"$out/$target.log" 2>&1 || { tail -n 40 "$out/$target.log" >&2; exit 1; }
  buildah push --quiet "bellwether-$target" "oci:$out/$target.oci"
  ln -s "$(buildah mount "$(buildah from "bellwether-$target")")" "$out/$target.root"
done
