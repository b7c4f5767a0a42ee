"""Steps that close what is open by default: audit log, PodSecurity, encryption of Secrets, profiling, file modes."""
