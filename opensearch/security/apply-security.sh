#!/bin/sh
# Reads the files of the security configuration into the security index again. To be run in the container
# of OpenSearch after they have changed:
#
#   docker compose exec opensearch sh /usr/local/bin/apply-security
set -eu
home=/usr/share/opensearch
certificates=$home/config/certificates
JAVA_HOME=${JAVA_HOME:-$home/jdk}
export JAVA_HOME
# By its interpreter: not every archive of the plugin says that it is a program.
exec bash "$home/plugins/opensearch-security/tools/securityadmin.sh" \
    -cd "$home/config/opensearch-security" -icl -nhnv -h localhost \
    -cacert "$certificates/ca.pem" -cert "$certificates/admin.pem" -key "$certificates/admin.key"
