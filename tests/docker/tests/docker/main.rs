//! Real containers under the firewall.
