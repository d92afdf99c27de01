//! Element types, shapes, tensor views, DLPack's DLTensor and the model block format.
