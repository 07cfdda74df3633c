# Shared by the scripts: messages, and what has to be installed.

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

need_rust() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs and open a new shell"
}

# need_packages COMMAND:PACKAGE...: installs the Debian packages of commands that are missing, or says how.
need_packages() {
  local missing=() pair
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "these Debian packages are needed: ${missing[*]}; install them with: sudo apt-get install ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Debian ships nginx's TCP and UDP proxy as a module of its own.
need_nginx_stream() {
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || need_packages ngx_stream_module:libnginx-mod-stream
}

# need_python PACKAGE...: packages of PyPI for tests, in target/python; where they cannot be had, this says so.
need_python() {
  local package missing=()
  for package in "$@"; do
    [ -e "target/python/$package" ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if ! { python3 -m venv target/python && target/python/bin/pip install --quiet "${missing[@]}"; }; then
    say "PyPI's ${missing[*]} cannot be had: TESTS THAT NEED THEM ARE LEFT OUT"
    return
  fi
  for package in "${missing[@]}"; do touch "target/python/$package"; done
}

# need_node PACKAGE@VERSION...: packages of npm for tests, in target/node; where they cannot be had, this says so.
need_node() {
  local package missing=()
  for package in "$@"; do
    [ -d "target/node/node_modules/${package%@*}" ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  mkdir -p target/node
  if ! npm install --prefix target/node --silent --no-audit --no-fund --no-package-lock "${missing[@]}"; then
    say "npm's ${missing[*]} cannot be had: TESTS THAT NEED THEM ARE LEFT OUT"
  fi
}
