#!/usr/bin/env bash
#
# Makes the passwords, keys and certificates of the stack. See usage().
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/stack-secrets.sh [--rotate] [--dir DIR]

Makes what `docker compose up` needs and what must not be in a repository, where it is missing:

  .env       random passwords of the stack's users, for compose to read
  secrets/   the stack's own certificate authority, certificates of OpenSearch and of its admin, and
             internal_users.yml with the hashes of the passwords

Nothing of it is ever printed. Files are for their owner alone (0600), certificates excepted. What is there
stays, so that a second run changes nothing; certificates with less than 30 days to live are made anew. Other
lines of .env are left as they are.

Needs openssl, and perl with a crypt(3) that knows bcrypt (Linux distributions have both).

Options:
  --rotate    new passwords, keys and certificates; says how to put them into force. The key of what
              OpenSearch has stored encrypted stays
  --dir DIR   directory of compose.yaml, instead of the one above this script
  -h, --help  print this

Exit status: 0 all is there, 1 something could not be made, 2 wrong use.
END
}

# Users of OpenSearch, and the variables of their passwords.
readonly USERS=(
    admin:OPENSEARCH_INITIAL_ADMIN_PASSWORD
    clawker-collector:CLAWKER_COLLECTOR_PASSWORD
    clawker-viewer:CLAWKER_VIEWER_PASSWORD
    clawker-dashboards:CLAWKER_DASHBOARDS_PASSWORD
)
# What else is random: the key that stored passwords of data sources are encrypted with (its length is
# that of an AES key), and that of the cookies of Dashboards.
readonly KEYS=(CLAWKER_DATASOURCE_MASTERKEY CLAWKER_DASHBOARDS_COOKIE_KEY)
# As which OpenSearch runs in its image.
readonly OPENSEARCH_USER=1000
readonly DAYS_CA=3650 DAYS=825
readonly RENEW=$((30 * 24 * 3600))

# random: 32 letters and digits. Sixty-four characters are drawn: the few that are neither are left out.
random() {
    local drawn
    drawn=$(openssl rand -base64 48 | tr -dc 'A-Za-z0-9')
    printf '%s' "${drawn:0:32}"
}

# value NAME: of .env.
value() { sed -n "s/^$1=//p" "$ENV" | tail -n 1; }

# set_value NAME VALUE: in .env, in one step and never readable for others.
set_value() {
    {
        grep -v "^$1=" "$ENV" || true
        printf '%s=%s\n' "$1" "$2"
    } >"$ENV.new"
    mv "$ENV.new" "$ENV"
}

make_passwords() {
    local pair name
    [[ -e $ENV ]] || printf '# Made by scripts/stack-secrets.sh. Whoever can read this is admin of the stack.\n' >"$ENV"
    chmod 600 "$ENV"
    for pair in "${USERS[@]}" "${KEYS[@]/#/:}"; do
        name=${pair#*:}
        if ((ROTATE)) && [[ $name != CLAWKER_DATASOURCE_MASTERKEY ]] || [[ -z $(value "$name") ]]; then
            set_value "$name" "$(random)"
            MADE+=("$name")
        fi
    done
}

# hash_of: bcrypt of the password on standard input. An argument could be read by every user of the machine.
# More rounds than 2^10 would protect what people choose; these are random.
hash_of() {
    perl -e '
        my ($salt, $password) = (shift, scalar <STDIN>);
        my $hash = crypt($password, "\$2y\$10\$$salt") // "";
        exit 1 unless length $hash == 60;
        print $hash' "$(openssl rand -base64 32 | tr -dc 'A-Za-z0-9' | head -c 21)u"
}

# matches: whether the hashes are those of the passwords in .env.
matches() { [[ -s $USERS_FILE && $(sed -n 's/^# of //p' "$USERS_FILE") == "$(fingerprint)" ]]; }

# fingerprint: of the passwords, with a secret key, so that a hash that is quick to try out is worth nothing.
fingerprint() {
    local pair
    {
        value CLAWKER_DATASOURCE_MASTERKEY
        for pair in "${USERS[@]}"; do value "${pair#*:}"; done
    } | openssl dgst -sha256 -r | cut -c 1-16
}

make_users() {
    local pair hash
    matches && return
    {
        printf '# Made by scripts/stack-secrets.sh from the passwords in .env; the number tells whether it is theirs.\n'
        printf '# of %s\n' "$(fingerprint)"
        printf '_meta:\n  type: internalusers\n  config_version: 2\n'
        for pair in "${USERS[@]}"; do
            hash=$(value "${pair#*:}" | tr -d '\n' | hash_of) ||
                fail "this machine's perl makes no bcrypt hashes" "run this on a Linux distribution with libxcrypt, and copy .env and secrets/"
            printf '\n%s:\n  hash: "%s"\n  reserved: true\n' "${pair%%:*}" "$hash"
        done
    } >"$USERS_FILE.new"
    replace "$USERS_FILE"
    MADE+=(internal_users.yml)
}

# replace FILE: by FILE.new, for the user of OpenSearch. The content is exchanged, not the file: a running
# container has this very file mounted.
replace() {
    chmod 600 "$1.new"
    if [[ -e $1 ]]; then
        cat "$1.new" >"$1"
        rm "$1.new"
    else
        mv "$1.new" "$1"
    fi
    for_opensearch "$1"
}

# for_opensearch FILE: readable in the container, where another user may have this number. Without root it
# can only be readable for all: nobody else of this machine gets into its directory, which is 0700.
for_opensearch() {
    if ((EUID == 0)); then
        chown "$OPENSEARCH_USER" "$1"
    elif ((EUID != OPENSEARCH_USER)); then
        chmod 644 "$1"
    fi
}

# fresh CERTIFICATE: it is there, of this authority, and will be valid for a while.
fresh() {
    ((!ROTATE)) && [[ -s $1 ]] && openssl x509 -in "$1" -noout -checkend "$RENEW" >/dev/null &&
        openssl verify -CAfile "$SECRETS/ca.pem" "$1" >/dev/null 2>&1
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

make_authority() {
    if fresh "$SECRETS/ca.pem" && [[ -s $SECRETS/ca.key ]]; then return; fi
    new_key "$SECRETS/ca.key"
    openssl req -x509 -new -key "$SECRETS/ca.key" -sha256 -days "$DAYS_CA" -subj "/O=clawker/CN=clawker stack" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
        -out "$SECRETS/ca.pem.new" 2>/dev/null || fail "openssl makes no certificate authority" "its version: $(openssl version)"
    replace "$SECRETS/ca.pem"
    chmod 644 "$SECRETS/ca.pem"
    MADE+=(ca.pem)
}

# make_certificate NAME USAGE ALTERNATIVES
make_certificate() {
    local name="$SECRETS/$1"
    if fresh "$name.pem" && [[ -s $name.key ]]; then return; fi
    new_key "$name.key.new"
    openssl req -new -key "$name.key.new" -sha256 -subj "/O=clawker/CN=$1" -out "$name.csr" 2>/dev/null
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n%s' \
        "$2" "${3:+subjectAltName=$3}" >"$name.ext"
    openssl x509 -req -in "$name.csr" -CA "$SECRETS/ca.pem" -CAkey "$SECRETS/ca.key" -sha256 -days "$DAYS" \
        -set_serial "0x$(openssl rand -hex 16)" -extfile "$name.ext" -out "$name.pem.new" 2>/dev/null ||
        fail "openssl signs no certificate for $1" "its version: $(openssl version)"
    rm "$name.csr" "$name.ext"
    replace "$name.key"
    replace "$name.pem"
    chmod 644 "$name.pem"
    MADE+=("$1.pem")
}

ROTATE=0
DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
while (($#)); do
    case $1 in
    --rotate) ROTATE=1 ;;
    --dir)
        (($# > 1)) || { usage >&2 && exit 2; }
        DIR=$(cd "$2" && pwd) || exit 1
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        printf 'stack-secrets: unknown argument: %s\n\n' "$1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done
readonly ROTATE DIR ENV="$DIR/.env" SECRETS="$DIR/secrets"
readonly USERS_FILE="$SECRETS/internal_users.yml"

command -v openssl >/dev/null || fail "openssl is not here" "install it, and run this again"
command -v perl >/dev/null || fail "perl is not here" "install it, and run this again"
MADE=()
umask 077
mkdir -p "$SECRETS"
chmod 700 "$SECRETS"
make_passwords
make_users
make_authority
make_certificate opensearch serverAuth,clientAuth DNS:opensearch,DNS:localhost,IP:127.0.0.1
make_certificate admin clientAuth ""

if ((${#MADE[@]} == 0)); then
    echo "stack-secrets: all is there in $ENV and $SECRETS"
    exit
fi
echo "stack-secrets: made ${#MADE[@]} secrets in $ENV and $SECRETS"
if ((ROTATE)); then
    cat <<'END'
A stack that has run before must be told of them, in this order:
  docker compose up --detach --wait --force-recreate --no-deps opensearch
  docker compose exec opensearch sh /usr/local/bin/apply-security
  docker compose up --detach
END
fi
