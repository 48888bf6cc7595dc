//! AMD SVM: definitions, VMRUN rules, intercept decisions; and the half that drives the CPU.
