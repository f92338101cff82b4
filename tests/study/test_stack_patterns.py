"""File names stand for modalities by anchored patterns, the longest first."""

import pytest
from any2all.stack import load_stack


@pytest.mark.parametrize(
    "name, modality",
    [
        ("T1.nii.gz", "T1"),
        ("sub-01_T1w_brain.nii.gz", "T1"),
        ("p01_mprage.mha", "T1"),
        ("T1-FLAIR.nii", "T1"),
        ("T1c.nii.gz", None),
        ("p_T1_c.nii.gz", None),
        ("p01_T1_ce.nii.gz", None),
        ("sub-01_ce-gadolinium_T1w.nii.gz", None),
        ("t1_mprage_gd.nii.gz", None),
        ("subT1.nii.gz", None),
        ("T2.nii.gz", "T2"),
        ("p01_t2_tse.nrrd", "T2"),
        ("T2FLAIR.nii.gz", "T2FLAIR"),
        ("p01_T2_FLAIR.nii.gz", "T2FLAIR"),
        ("t2_space_flair.nii.gz", "T2FLAIR"),
        ("flair.h5", "T2FLAIR"),
        ("T2w_FLAIR.nii.gz", "T2FLAIR"),
        ("3 T2 FLAIR ax.nii.gz", "T2FLAIR"),
        ("t2_space_dark-fluid_sag.nii.gz", "T2FLAIR"),
        ("5 t2_tirm_tra_dark-fluid.nii.gz", "T2FLAIR"),
        ("4 T1 FLAIR sag.nii.gz", "T1"),
        ("FLAIR_post.nii.gz", None),
        ("T2star.nii.gz", "T2star"),
        ("T2_starw.nii.gz", "T2star"),
        ("T2*.nii.gz", "T2star"),
        ("t2starmap.nii.gz", None),
        ("head_ct.nii.gz", "CT"),
        ("pet_av45.nii.gz", "PET"),
        ("object.nii.gz", None),
        ("T2_to_T1.nii.gz", "T2"),
        ("FLAIR_registered_to_T1.nii.gz", "T2FLAIR"),
        ("p07_T1_in_T2_space.nii.gz", "T1"),
        ("sub-01_space-T1w_T2w.nii.gz", "T2"),
        ("sub-01_ses-2_space-T1w_desc-brain_FLAIR.nii.gz", "T2FLAIR"),
        ("t2_space-flair_sag.nii.gz", "T2FLAIR"),  # the sequence SPACE
        ("moved_to_mni_T2.nii.gz", "T2"),
        ("MR_to_CT.nii.gz", None),
        ("T1_pre_contrast.nii.gz", "T1"),
        ("T1 without contrast.nii.gz", "T1"),
        ("T1_W_O_CONTRAST.nii.gz", "T1"),
        ("no_contrast_T1.nii.gz", "T1"),
        ("pre_gadolinium_T1.nii.gz", "T1"),
        ("FLAIR_no-gad.nii.gz", "T2FLAIR"),
        ("T1_w_and_wo_contrast.nii.gz", None),
        ("T1_pre_and_post.nii.gz", None),
    ],
)
def test_file_names(name, modality):
    assert load_stack().match(name) == modality
